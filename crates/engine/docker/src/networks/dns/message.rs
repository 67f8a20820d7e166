//! Reads questions, and writes answers about neighbours.

use super::{Found, Names};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use std::net::IpAddr;

/// Seconds that an answer may be kept, as Docker says.
const TTL: u32 = 600;
/// What a client without EDNS can take in a datagram (RFC 1035), and what fits every path.
const PLAIN_DATAGRAM: u16 = 512;
const SAFE_DATAGRAM: u16 = 1232;
const HEADER: usize = 12;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Datagram,
    Stream,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Reply(Vec<u8>),
    /// Others may know.
    Forward,
    /// No question at all.
    Ignored,
}

/// Answers a question, or says who must.
pub(super) fn answer(bytes: &[u8], transport: Transport, names: &dyn Names) -> Outcome {
    const RESPONSE_BIT: u8 = 0x80;
    if bytes.len() < HEADER || bytes[2] & RESPONSE_BIT != 0 {
        return Outcome::Ignored;
    }
    let Ok(question) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        let error = Message::error_msg(id, OpCode::from_u8(bytes[2] >> 3 & 0x0f), ResponseCode::FormErr);
        return Outcome::Reply(encode(&error, PLAIN_DATAGRAM));
    };
    let [query] = question.queries() else {
        return Outcome::Reply(reply(&question, transport, Vec::new(), ResponseCode::FormErr));
    };
    if question.op_code() != OpCode::Query || query.query_class() != DNSClass::IN {
        return Outcome::Forward;
    }
    match records(query, names) {
        Some(records) => Outcome::Reply(reply(&question, transport, records, ResponseCode::NoError)),
        None => Outcome::Forward,
    }
}

/// The records of a neighbour; an empty list when it exists and has none of the type. Nothing when it is none of ours.
fn records(query: &Query, names: &dyn Names) -> Option<Vec<Record>> {
    let owner = query.name();
    let record = |data: RData| Record::from_rdata(owner.clone(), TTL, data);
    match query.query_type() {
        kind @ (RecordType::A | RecordType::AAAA) => {
            let text = owner.to_ascii();
            let Found::Addresses(found) = names.addresses(text.trim_end_matches('.')) else { return None };
            let data = found.into_iter().filter_map(|address| match (address, kind) {
                (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(v4))),
                (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(v6))),
                _ => None,
            });
            Some(data.map(record).collect())
        }
        RecordType::PTR => {
            let address = owner.parse_arpa_name().ok()?;
            if address.prefix_len() != address.max_prefix_len() {
                return None;
            }
            let Found::Name(name) = names.name(address.addr()) else { return None };
            let name = Name::from_ascii(name + ".").ok()?;
            Some(vec![record(RData::PTR(PTR(name)))])
        }
        // A neighbour has no other records, and nobody else knows it.
        RecordType::MX | RecordType::SRV | RecordType::TXT | RecordType::HTTPS | RecordType::SVCB => {
            let text = owner.to_ascii();
            matches!(names.addresses(text.trim_end_matches('.')), Found::Addresses(_)).then(Vec::new)
        }
        _ => None,
    }
}

fn reply(question: &Message, transport: Transport, records: Vec<Record>, code: ResponseCode) -> Vec<u8> {
    let mut response = Message::new();
    response
        .set_id(question.id())
        .set_message_type(MessageType::Response)
        .set_op_code(question.op_code())
        .set_recursion_desired(question.recursion_desired())
        .set_recursion_available(true)
        .set_response_code(code)
        .add_queries(question.queries().to_vec())
        .insert_answers(records);
    let asked = question.extensions().as_ref().map(|edns| edns.max_payload());
    if asked.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(SAFE_DATAGRAM).set_version(0);
        response.set_edns(edns);
    }
    let limit = match (transport, asked) {
        (Transport::Stream, _) => u16::MAX,
        (Transport::Datagram, None) => PLAIN_DATAGRAM,
        (Transport::Datagram, Some(size)) => size.clamp(PLAIN_DATAGRAM, SAFE_DATAGRAM),
    };
    encode(&response, limit)
}

/// The answer when nobody can be asked.
pub(super) fn failure(question: &[u8]) -> Vec<u8> {
    match Message::from_vec(question) {
        Ok(question) => reply(&question, Transport::Datagram, Vec::new(), ResponseCode::ServFail),
        Err(_) => Vec::new(),
    }
}

/// Whether these bytes answer this question: a response with its id.
pub(super) fn answers(bytes: &[u8], question: &[u8]) -> bool {
    bytes.len() >= HEADER && question.len() >= HEADER && bytes[..2] == question[..2] && bytes[2] & 0x80 != 0
}

/// What does not fit is left out, and the message says so.
fn encode(message: &Message, limit: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_DATAGRAM));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    match message.emit(&mut encoder) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::str::FromStr;

    struct One;

    impl Names for One {
        fn addresses(&self, name: &str) -> Found {
            if name.eq_ignore_ascii_case("web") {
                Found::Addresses(vec!["10.0.0.2".parse().unwrap()])
            } else {
                Found::Unknown
            }
        }
        fn name(&self, address: IpAddr) -> Found {
            if address.to_string() == "10.0.0.2" { Found::Name("web.n1".into()) } else { Found::Unknown }
        }
        fn servers(&self) -> Vec<SocketAddr> {
            Vec::new()
        }
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new();
        message.set_id(7).set_recursion_desired(true).add_query(Query::query(Name::from_str(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn ask(name: &str, kind: RecordType) -> Option<Vec<String>> {
        match answer(&question(name, kind), Transport::Datagram, &One) {
            Outcome::Reply(bytes) => {
                let message = Message::from_vec(&bytes).unwrap();
                assert_eq!((message.id(), message.response_code()), (7, ResponseCode::NoError));
                Some(message.answers().iter().map(|r| r.data().to_string()).collect())
            }
            _ => None,
        }
    }

    #[test]
    fn neighbours_are_known_and_others_passed_on() {
        assert_eq!(ask("web.", RecordType::A).unwrap(), ["10.0.0.2"]);
        assert_eq!(ask("WEB.", RecordType::A).unwrap(), ["10.0.0.2"]);
        assert_eq!(ask("web.", RecordType::AAAA).unwrap(), [""; 0]);
        assert_eq!(ask("web.", RecordType::MX).unwrap(), [""; 0]);
        assert_eq!(ask("2.0.0.10.in-addr.arpa.", RecordType::PTR).unwrap(), ["web.n1."]);
        for (name, kind) in
            [("other.", RecordType::A), ("3.0.0.10.in-addr.arpa.", RecordType::PTR), ("x.", RecordType::MX)]
        {
            assert!(ask(name, kind).is_none(), "{name}");
        }
    }

    #[test]
    fn failures_and_answers_belong_to_their_question() {
        let asked = question("x.", RecordType::A);
        let failed = failure(&asked);
        assert_eq!(Message::from_vec(&failed).unwrap().response_code(), ResponseCode::ServFail);
        assert!(answers(&failed, &asked) && !answers(&asked, &asked) && !answers(&[], &asked));
    }

    #[test]
    fn noise_breaks_nothing() {
        let seeds = [question("web.", RecordType::A), question("2.0.0.10.in-addr.arpa.", RecordType::PTR)];
        let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
        pintle_noise::feed(&seeds, 2000, |bytes| {
            if let Outcome::Reply(reply) = answer(bytes, Transport::Datagram, &One) {
                assert!(reply.len() <= usize::from(SAFE_DATAGRAM) && (reply.is_empty() || answers(&reply, bytes)));
            }
        });
    }
}
