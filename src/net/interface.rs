//! Network interfaces by name or address.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// A network interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Kernel index.
    pub index: u32,
    /// Name, `eth0`.
    pub name: String,
}

/// Why an interface could not be found.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// No interface has that name or address now.
    #[error("interface {0:?} does not exist (no interface has this name or address)")]
    Missing(String),
    /// The kernel did not list the interfaces.
    #[error("cannot list the interfaces: {0}")]
    Kernel(#[from] io::Error),
}

impl Interface {
    /// Finds an interface by its name or by one of its addresses.
    ///
    /// # Errors
    /// [`InterfaceError::Missing`] when there is none now; it may come back.
    pub fn find(wanted: &str) -> Result<Self, InterfaceError> {
        let address: Option<IpAddr> = wanted.parse().ok();
        let mut found = None;
        each(|name, addr| {
            let hit = match address {
                Some(address) => addr == Some(address),
                None => name == wanted,
            };
            if hit && found.is_none() {
                found = Some(name.to_owned());
            }
        })?;
        let name = found.ok_or_else(|| InterfaceError::Missing(wanted.to_owned()))?;
        let index = interface_index(&name).ok_or_else(|| InterfaceError::Missing(wanted.to_owned()))?;
        Ok(Self { index, name })
    }

    /// The interface's first IPv4 address, if it has one.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        let mut found = None;
        let _ = each(|name, addr| {
            if let (true, Some(IpAddr::V4(v4)), None) = (name == self.name, addr, found) {
                found = Some(v4);
            }
        });
        found
    }
}

/// The kernel's index of the interface of that name now.
pub fn interface_index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: `name` is a valid C string for the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

fn each(mut visit: impl FnMut(&str, Option<IpAddr>)) -> io::Result<()> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a valid out-pointer; it is freed below on every path.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: `entry` is a node of the list that getifaddrs made and that is not freed yet.
        let node = unsafe { &*entry };
        // SAFETY: ifa_name is a valid C string for the life of the list.
        if let Ok(name) = unsafe { CStr::from_ptr(node.ifa_name) }.to_str() {
            visit(name, address(node.ifa_addr));
        }
        entry = node.ifa_next;
    }
    // SAFETY: `list` came from getifaddrs and is freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(())
}

fn address(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: the kernel's address starts with its family, which tells how long it is.
    unsafe {
        match i32::from((*addr).sa_family) {
            libc::AF_INET => {
                let v4 = &*addr.cast::<libc::sockaddr_in>();
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                let v6 = &*addr.cast::<libc::sockaddr_in6>();
                Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_by_address() {
        let by_name = Interface::find("lo").unwrap();
        assert_eq!(by_name, Interface::find("127.0.0.1").unwrap());
        assert_eq!(by_name.ipv4(), Some(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = Interface::find("nosuch0").unwrap_err();
        assert!(error.to_string().contains("nosuch0"), "{error}");
    }
}
