//! Queueing disciplines: a token bucket that bounds how fast a link sends.

use super::Netlink;
use crate::Result;
use crate::socket::flag;

/// Bytes of `struct tcmsg`.
const HEADER: usize = 20;
const NEW_QDISC: u16 = 36;
/// `TC_H_ROOT`.
const ROOT: u32 = 0xffff_ffff;
/// The discipline's own handle, `1:`.
const HANDLE: u32 = 1 << 16;
/// `TCA_*` and `TCA_TBF_*` (linux/rtnetlink.h, linux/pkt_sched.h).
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const PARAMETERS: u16 = 1;
const RATE_64: u16 = 4;
const BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: packets cost what they are long, and no table of costs is needed.
const ETHERNET: u8 = 1;

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// The link's index.
    pub link: u32,
    pub bytes_per_second: u64,
    /// What may be sent at once after a silence, in bytes; at least the largest packet, 64 KiB where the link
    /// takes segments to cut.
    pub burst_bytes: u32,
    /// What may wait, in bytes; the rest is dropped.
    pub limit_bytes: u32,
}

impl Netlink {
    /// Bounds what a link sends, in the place of an earlier bound or of the kernel's own discipline.
    pub fn set_token_bucket(&mut self, bucket: &TokenBucket) -> Result<()> {
        let mut header = [0; HEADER];
        header[4..8].copy_from_slice(&bucket.link.to_ne_bytes());
        header[8..12].copy_from_slice(&HANDLE.to_ne_bytes());
        header[12..16].copy_from_slice(&ROOT.to_ne_bytes());
        let doing = || format!("let link {} send {} bytes a second", bucket.link, bucket.bytes_per_second);
        self.socket.request(NEW_QDISC, flag(libc::NLM_F_CREATE | libc::NLM_F_REPLACE), &header, doing, |w| {
            w.string(KIND, "tbf");
            w.nest(OPTIONS, |w| {
                w.attribute(PARAMETERS, &parameters(bucket));
                w.attribute(RATE_64, &bucket.bytes_per_second.to_ne_bytes());
                w.u32(BURST, bucket.burst_bytes);
            });
        })
    }
}

/// `struct tc_tbf_qopt`: the rate and the peak rate (`struct tc_ratespec`), the limit, the buffer and the MTU. The
/// attributes for 64 bits and for bytes say the rate and the buffer, which have too little room here.
fn parameters(bucket: &TokenBucket) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[1] = ETHERNET;
    let rate = u32::try_from(bucket.bytes_per_second).unwrap_or(u32::MAX);
    bytes[8..12].copy_from_slice(&rate.to_ne_bytes());
    bytes[24..28].copy_from_slice(&bucket.limit_bytes.to_ne_bytes());
    bytes
}
