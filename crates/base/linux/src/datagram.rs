//! Datagrams of IPv6 with the address of the machine that they were sent to, and answers from that very address.
//!
//! A machine has several addresses of IPv6, often on one link; the kernel would answer from the one that it likes best,
//! and whoever asked another does not take that for an answer. Source: RFC 3542, section 6.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// One of the machine's own addresses, as a datagram names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Own {
    pub address: Ipv6Addr,
    /// The link, where the address alone does not say which; 0 elsewhere.
    pub link: u32,
}

/// A datagram that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub length: usize,
    pub from: SocketAddrV6,
    /// Nothing where the socket was not told to say it.
    pub to: Option<Own>,
}

/// Room for what stands beside a datagram, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Makes a socket say to which address each datagram was sent.
///
/// # Errors
/// The socket is none of IPv6.
pub fn tell_destinations(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives on, and its length is that of an int.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the next datagram; what does not fit into the buffer is lost.
///
/// # Errors
/// `WouldBlock` when there is none, and what earlier datagrams of this socket met.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; 64]);
    // SAFETY: all zeros are a valid address of a socket.
    let mut from: libc::sockaddr_in6 = unsafe { zeroed() };
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = message_of(&mut piece, &mut from, &mut control);
    // SAFETY: the message points to an address, a buffer and room for control data that live on, with their lengths.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(Received { length, from: address_of(&from), to: destination_of(&message) })
}

/// Sends a datagram, where `own` is given from that address.
///
/// # Errors
/// `WouldBlock` when there is no room, and whatever the kernel has against it.
pub fn send(socket: impl AsFd, bytes: &[u8], to: SocketAddrV6, own: Option<Own>) -> io::Result<usize> {
    let mut control = Control([0; 64]);
    // SAFETY: all zeros are a valid address of a socket.
    let mut target: libc::sockaddr_in6 = unsafe { zeroed() };
    target.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    target.sin6_port = to.port().to_be();
    target.sin6_addr.s6_addr = to.ip().octets();
    target.sin6_scope_id = to.scope_id();
    // The kernel only reads it.
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = message_of(&mut piece, &mut target, &mut control);
    let info = own.map(|own| libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr { s6_addr: own.address.octets() },
        ipi6_ifindex: own.link,
    });
    // SAFETY: the room for control data is larger than one header with its content (checked below), and is part of the
    // message; the content may lie at any alignment.
    unsafe {
        match info {
            None => message.msg_controllen = 0,
            Some(info) => {
                message.msg_controllen = SPACE as _;
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::IPPROTO_IPV6;
                (*header).cmsg_type = libc::IPV6_PKTINFO;
                (*header).cmsg_len = libc::CMSG_LEN(INFO) as _;
                libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().write_unaligned(info);
            }
        }
    }
    // SAFETY: the message points to an address, bytes and control data that live on, with their lengths.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

const INFO: u32 = size_of::<libc::in6_pktinfo>() as u32;
// SAFETY: it only computes with the number.
const SPACE: u32 = unsafe { libc::CMSG_SPACE(INFO) };
const _: () = assert!(SPACE as usize <= size_of::<Control>());

fn message_of(piece: &mut libc::iovec, address: &mut libc::sockaddr_in6, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeros are a valid message without any parts.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut *address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    message.msg_iov = &raw mut *piece;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    message
}

fn address_of(from: &libc::sockaddr_in6) -> SocketAddrV6 {
    let address = Ipv6Addr::from(from.sin6_addr.s6_addr);
    SocketAddrV6::new(address, u16::from_be(from.sin6_port), 0, from.sin6_scope_id)
}

fn destination_of(message: &libc::msghdr) -> Option<Own> {
    // SAFETY: the kernel has filled the message; its headers are walked as long as they lie within it, and the content
    // of one of this kind and length is read at any alignment.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const *message);
        while !header.is_null() {
            let (level, kind) = ((*header).cmsg_level, (*header).cmsg_type);
            // Other C libraries have a narrower field.
            #[allow(clippy::unnecessary_cast)]
            let whole = (*header).cmsg_len as usize >= libc::CMSG_LEN(INFO) as usize;
            if whole && (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) {
                let info = libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned();
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let link = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                return Some(Own { address, link });
            }
            header = libc::CMSG_NXTHDR(&raw const *message, header);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        // A kernel without IPv6 has nothing to try this with.
        let Ok(server) = UdpSocket::bind("[::]:0") else { return };
        tell_destinations(&server).unwrap();
        let client = UdpSocket::bind("[::1]:0").unwrap();
        client.connect(("::1", server.local_addr().unwrap().port())).unwrap();
        client.send(b"asked").unwrap();
        let mut buffer = [0; 16];
        let received = receive(&server, &mut buffer).unwrap();
        assert_eq!(&buffer[..received.length], b"asked");
        assert_eq!(received.to, Some(Own { address: Ipv6Addr::LOCALHOST, link: 0 }));
        assert_eq!(std::net::SocketAddr::V6(received.from), client.local_addr().unwrap());
        send(&server, b"told", received.from, received.to).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"told");
        send(&server, b"also", received.from, None).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    }

    #[test]
    fn a_datagram_without_a_destination_is_one_too() {
        let Ok(server) = UdpSocket::bind("[::1]:0") else { return };
        let client = UdpSocket::bind("[::1]:0").unwrap();
        client.send_to(b"x", server.local_addr().unwrap()).unwrap();
        assert_eq!(receive(&server, &mut [0; 4]).unwrap().to, None);
        let foreign = Some(Own { address: "2001:db8::1".parse().unwrap(), link: 0 });
        let std::net::SocketAddr::V6(target) = client.local_addr().unwrap() else { panic!("an address of IPv6") };
        assert!(send(&server, b"x", target, foreign).is_err(), "from an address that is not ours");
    }
}
