//! Reads queries and writes responses within the sizes that both sides can take.

use crate::answer::Answer;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::DNSClass;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// What a client without EDNS can take in a datagram (RFC 1035).
const PLAIN_DATAGRAM: u16 = 512;
/// What fits every path without fragments (DNS flag day 2020).
pub(crate) const SAFE_DATAGRAM: u16 = 1232;

/// How a query came, and how the response goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Datagram,
    Stream,
}

/// A query that is worth an answer.
#[derive(Debug)]
pub(crate) struct Request {
    message: Message,
    transport: Transport,
}

/// What was received.
#[derive(Debug)]
pub(crate) enum Received {
    Request(Request),
    /// It is answered with an error at once.
    Refused(Vec<u8>),
    /// It is not answered: a response, or too short to say to whom.
    Ignored,
}

impl Request {
    pub(crate) fn query(&self) -> &Query {
        // `read` lets only messages with one query pass.
        &self.message.queries()[0]
    }

    pub(crate) fn wants_dnssec(&self) -> bool {
        self.message.extensions().as_ref().is_some_and(|edns| edns.flags().dnssec_ok)
    }

    pub(crate) fn checking_disabled(&self) -> bool {
        self.message.checking_disabled()
    }

    /// The response with an answer of this server's own.
    pub(crate) fn respond(&self, answer: Answer) -> Vec<u8> {
        let mut response = self.base(answer.code.unwrap_or(ResponseCode::NoError));
        response.set_authoritative(true);
        response.insert_answers(answer.answers);
        response.insert_name_servers(answer.authority);
        response.insert_additionals(answer.additionals);
        self.encode(&response)
    }

    /// The response with what an upstream server said.
    pub(crate) fn relay(&self, upstream: &Message) -> Vec<u8> {
        let mut response = self.base(upstream.response_code());
        response.set_authentic_data(upstream.authentic_data());
        response.insert_answers(upstream.answers().to_vec());
        response.insert_name_servers(upstream.name_servers().to_vec());
        response.insert_additionals(upstream.additionals().to_vec());
        self.encode(&response)
    }

    /// The response without any record.
    pub(crate) fn fail(&self, code: ResponseCode) -> Vec<u8> {
        self.encode(&self.base(code))
    }

    fn base(&self, code: ResponseCode) -> Message {
        let mut response = Message::new();
        response
            .set_id(self.message.id())
            .set_message_type(MessageType::Response)
            .set_op_code(self.message.op_code())
            .set_recursion_desired(self.message.recursion_desired())
            .set_recursion_available(true)
            .set_checking_disabled(self.message.checking_disabled())
            .set_response_code(code)
            .add_queries(self.message.queries().to_vec());
        if let Some(asked) = self.message.extensions() {
            let mut edns = Edns::new();
            edns.set_max_payload(SAFE_DATAGRAM).set_version(0).set_dnssec_ok(asked.flags().dnssec_ok);
            response.set_edns(edns);
        }
        response
    }

    /// What does not fit is left out, and the response says so: the client then asks over a stream.
    fn encode(&self, response: &Message) -> Vec<u8> {
        let limit = match (self.transport, self.message.extensions()) {
            (Transport::Stream, _) => u16::MAX,
            (Transport::Datagram, None) => PLAIN_DATAGRAM,
            (Transport::Datagram, Some(edns)) => edns.max_payload().clamp(PLAIN_DATAGRAM, SAFE_DATAGRAM),
        };
        encode(response, limit)
            .unwrap_or_else(|| error_header(self.message.id(), self.message.op_code(), ResponseCode::ServFail))
    }
}

/// Reads what came from a client.
pub(crate) fn read(bytes: &[u8], transport: Transport) -> Received {
    const RESPONSE_BIT: u8 = 0x80;
    let (Some([high, low]), Some(flags)) = (bytes.first_chunk::<2>(), bytes.get(2)) else { return Received::Ignored };
    if bytes.len() < 12 || flags & RESPONSE_BIT != 0 {
        return Received::Ignored;
    }
    let id = u16::from_be_bytes([*high, *low]);
    let op_code = OpCode::from_u8(flags >> 3 & 0x0f);
    let Ok(message) = Message::from_vec(bytes) else {
        return Received::Refused(error_header(id, op_code, ResponseCode::FormErr));
    };
    let request = Request { message, transport };
    let refusal = match request.message.queries() {
        _ if op_code != OpCode::Query => Some(ResponseCode::NotImp),
        _ if request.message.extensions().as_ref().is_some_and(|edns| edns.version() > 0) => {
            Some(ResponseCode::BADVERS)
        }
        [only] if only.query_class() == DNSClass::IN => None,
        [_] => Some(ResponseCode::Refused),
        _ => Some(ResponseCode::FormErr),
    };
    match refusal {
        None => Received::Request(request),
        Some(code) => Received::Refused(request.fail(code)),
    }
}

/// Encodes a message in at most `limit` bytes.
pub(crate) fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_DATAGRAM));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    message.emit(&mut encoder).ok()?;
    Some(bytes)
}

fn error_header(id: u16, op_code: OpCode, code: ResponseCode) -> Vec<u8> {
    encode(&Message::error_msg(id, op_code, code), PLAIN_DATAGRAM).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{A, TXT};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    /// A query with EDNS, and a response with compressed names.
    fn samples() -> [Vec<u8>; 2] {
        let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
        let mut query = Message::new();
        query.set_id(7).set_recursion_desired(true).add_query(Query::query(name.clone(), RecordType::A));
        let mut edns = Edns::new();
        edns.set_max_payload(4096).set_dnssec_ok(true);
        query.set_edns(edns);
        let mut response = query.clone();
        response.set_message_type(MessageType::Response);
        response.add_answer(Record::from_rdata(name.clone(), 30, RData::A(A::new(10, 0, 0, 1))));
        response.add_answer(Record::from_rdata(name, 30, RData::TXT(TXT::new(vec!["x".repeat(200); 8]))));
        [encode(&query, u16::MAX).unwrap(), encode(&response, u16::MAX).unwrap()]
    }

    #[test]
    fn broken_messages_are_answered_within_limits_or_ignored() {
        let [query, response] = samples();
        let Received::Request(good) = read(&query, Transport::Datagram) else { panic!("the sample is a query") };
        pintle_noise::feed(&[&query, &response], 1500, |bytes| {
            let answer = match read(bytes, Transport::Datagram) {
                Received::Request(request) => request.fail(ResponseCode::NXDomain),
                Received::Refused(answer) => answer,
                Received::Ignored => Vec::new(),
            };
            assert!(answer.len() <= usize::from(SAFE_DATAGRAM));
            if let Ok(upstream) = Message::from_vec(bytes) {
                assert!(good.relay(&upstream).len() <= usize::from(SAFE_DATAGRAM));
            }
        });
    }
}
