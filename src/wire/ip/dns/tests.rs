//! Tests of DNS_ASSIGN and PREF64.
