//! Temporary: what other branches bring.
#![allow(missing_debug_implementations, clippy::unnecessary_wraps)]
pub mod dnsmasq {
    use super::names::Host;
    use crate::error::Result;
    use crate::host::Handle;
    use crate::spec::*;
    use std::{
        ffi::OsString,
        path::{Path, PathBuf},
    };
    #[derive(Debug, Clone, serde::Serialize)]
    pub struct Lease {}
    impl std::fmt::Display for Lease {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("x")
        }
    }
    pub fn start(_: &NetworkSpec, _: &Path) -> Result<Handle> {
        Ok(Handle::current().unwrap())
    }
    pub fn command(_: &NetworkSpec, _: &Path) -> Result<(PathBuf, Vec<OsString>)> {
        Ok(("x".into(), vec![]))
    }
    pub fn stop(_: Handle) -> Result<()> {
        Ok(())
    }
    pub fn publish(_: &NetworkSpec, _: &Path, _: &[Host], _: Option<Handle>) -> Result<()> {
        Ok(())
    }
    pub fn leases(_: &Path) -> Result<Vec<Lease>> {
        Ok(vec![])
    }
}
pub mod names {
    use crate::error::Result;
    use crate::spec::*;
    use std::net::*;
    #[derive(Debug, Clone)]
    pub struct Host {
        pub vm: uuid::Uuid,
        pub nic: u8,
        pub name: Name,
        pub mac: Mac,
        pub ip: Ipv4Addr,
        pub ip6: Option<Ipv6Addr>,
    }
    #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
    pub enum How {
        Resolved,
        Hosts,
    }
    impl std::fmt::Display for How {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("x")
        }
    }
    pub fn how(_: &NetworkSpec) -> Result<How> {
        Ok(How::Hosts)
    }
    pub fn announce(_: &NetworkSpec) -> Result<How> {
        Ok(How::Hosts)
    }
    pub fn withdraw(_: &NetworkSpec) -> Result<()> {
        Ok(())
    }
    pub fn write_hosts(_: &std::path::Path, _: &std::path::Path, _: &[(IpAddr, String)]) -> Result<()> {
        Ok(())
    }
}
