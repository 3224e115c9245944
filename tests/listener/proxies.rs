//! The built-in handlers, wrapped and with hooks.
