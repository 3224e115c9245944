//! Chapter 6: tunnels in a server that is yours already.
