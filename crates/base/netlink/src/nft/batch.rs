//! A transaction: the changes of one table in the order in which the kernel makes them.

use super::set::{self, Data, Field, Key, Set, SetName, write_value, write_verdict};
use super::{Family, Rule, Verdict};
use crate::socket::flag;
use crate::wire::{self, HEADER, Writer};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFT_MSG_*`.
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
/// `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;
/// Tells `nft list` that a key is in the machine's byte order: type 0, length 4, the number 1 (libnftnl's udata).
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};
/// Elements of one message stay below the 64 KiB of their attribute.
const ELEMENTS_BYTES: usize = 60_000;

/// Where on a packet's way a base chain sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    /// Sees only the first packet of a connection.
    Nat,
}

/// What becomes of packets that no rule of a base chain decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

/// A transaction on one table.
#[derive(Debug)]
pub struct Batch {
    writer: Writer,
    family: Family,
    table: String,
    sequence: u32,
    /// Where the latest message starts: the last one asks for an answer.
    latest: usize,
    anonymous_sets: u32,
}

impl Batch {
    pub fn new(family: Family, table: &str) -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, flag(libc::NLM_F_REQUEST), 0, &batch_header(), |_| ());
        Self { writer, family, table: table.to_owned(), sequence: 0, latest: 0, anonymous_sets: 0 }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.sequence == 0
    }

    /// Makes the table if it is not there.
    pub fn add_table(&mut self) {
        self.push(NEW_TABLE, libc::NLM_F_CREATE, |w, table| w.string(1, table));
    }

    /// Deletes the table with everything in it.
    pub fn delete_table(&mut self) {
        self.push(DELETE_TABLE, 0, |w, table| w.string(1, table));
    }

    /// Begins with an empty table, whether there was one or not.
    pub fn replace_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    /// Makes a chain that packets enter from a hook. Chains of smaller priority come first.
    pub fn add_base_chain(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32, policy: Policy) {
        self.push(NEW_CHAIN, libc::NLM_F_CREATE, |w, table| {
            w.string(1, table);
            w.string(3, name);
            w.nest(4, |w| {
                w.u32_be(1, hook as u32);
                w.u32_be(2, priority as u32);
            });
            w.u32_be(5, u32::from(policy == Policy::Accept));
            w.string(7, if kind == ChainKind::Nat { "nat" } else { "filter" });
        });
    }

    /// Makes a chain that rules and verdict maps lead to.
    pub fn add_chain(&mut self, name: &str) {
        self.push(NEW_CHAIN, libc::NLM_F_CREATE, |w, table| {
            w.string(1, table);
            w.string(3, name);
        });
    }

    /// Deletes a chain, which must be empty and which nothing may lead to any more.
    pub fn delete_chain(&mut self, name: &str) {
        self.push(DELETE_CHAIN, 0, |w, table| {
            w.string(1, table);
            w.string(3, name);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.push(DELETE_RULE, 0, |w, table| {
            w.string(1, table);
            w.string(2, name);
        });
    }

    /// Adds a rule at a chain's end.
    pub fn add_rule(&mut self, chain: &str, rule: Rule) {
        let too_large = rule.expressions.too_large;
        self.push(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, |w, table| {
            w.string(1, table);
            w.string(2, chain);
            w.nest(4, |w| w.bytes.extend_from_slice(&rule.expressions.bytes));
            if let Some(comment) = &rule.comment {
                w.attribute(7, &comment_data(comment));
            }
        });
        self.writer.too_large |= too_large;
    }

    /// Makes a set or map that rules find by its name.
    pub fn add_set(&mut self, name: &str, set: &Set<'_>) {
        self.new_set(SetName::Named(name), set, 0, None);
    }

    /// Makes a set or map of this many elements for the one rule that is added after them. The kernel keeps a set whose
    /// size it knows in a plain table, smaller and quicker than one that can grow.
    pub fn add_anonymous_set(&mut self, set: &Set<'_>, elements: usize) -> SetName<'static> {
        const ANONYMOUS: u32 = 1;
        const CONSTANT: u32 = 2;
        self.anonymous_sets += 1;
        let name = SetName::Anonymous(self.anonymous_sets);
        self.new_set(name, set, ANONYMOUS | CONSTANT, u32::try_from(elements).ok());
        name
    }

    fn new_set(&mut self, name: SetName<'_>, set: &Set<'_>, flags: u32, size: Option<u32>) {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVALUATED: u32 = 0x20;
        const VERDICT_TYPE: u32 = 0xffff_ff00;
        let map = if set.data == Data::Nothing { 0 } else { MAP };
        let dynamic = if set.timeout_ms.is_some() { TIMEOUT | EVALUATED } else { 0 };
        // The kernel wants a number for every new set of a batch; those of named sets are never looked up.
        let id = if let SetName::Anonymous(id) = name { id } else { 0x8000_0000 | self.sequence };
        self.push(NEW_SET, libc::NLM_F_CREATE, |w, table| {
            w.string(1, table);
            w.string(2, if let SetName::Named(name) = name { name } else { "__map%d" });
            w.u32_be(3, flags | map | dynamic);
            w.u32_be(4, set::datatype(set.key));
            w.u32_be(5, set::length(set.key));
            match set.data {
                Data::Nothing => {}
                Data::Verdict => {
                    w.u32_be(6, VERDICT_TYPE);
                    w.u32_be(7, 16);
                }
                Data::Fields(fields) => {
                    w.u32_be(6, set::datatype(fields));
                    w.u32_be(7, set::length(fields));
                }
            }
            if let Some(size) = size {
                w.nest(9, |w| w.u32_be(1, size));
            }
            w.u32_be(10, id);
            if set.key == [Field::Number] {
                w.attribute(13, &HOST_ORDER);
            }
        });
    }

    /// Deletes a set, which no rule may use any more.
    pub fn delete_set(&mut self, name: &str) {
        self.push(DELETE_SET, 0, |w, table| {
            w.string(1, table);
            w.string(2, name);
        });
    }

    /// Adds keys to a plain set.
    pub fn add_keys(&mut self, set: SetName<'_>, keys: impl IntoIterator<Item = Key>) {
        self.elements(NEW_ELEMENTS, set, keys, |w, key| write_value(w, 1, key.as_slice()));
    }

    /// Adds keys with their verdicts to a verdict map.
    pub fn add_verdicts<'v>(&mut self, map: SetName<'_>, elements: impl IntoIterator<Item = (Key, &'v Verdict)>) {
        self.elements(NEW_ELEMENTS, map, elements, |w, (key, verdict)| {
            write_value(w, 1, key.as_slice());
            write_verdict(w, 2, verdict);
        });
    }

    /// Adds keys with their data to a map.
    pub fn add_values(&mut self, map: SetName<'_>, elements: impl IntoIterator<Item = (Key, Key)>) {
        self.elements(NEW_ELEMENTS, map, elements, |w, (key, data)| {
            write_value(w, 1, key.as_slice());
            write_value(w, 2, data.as_slice());
        });
    }

    /// Deletes keys of a set or map; all of them must be there.
    pub fn delete_keys(&mut self, set: SetName<'_>, keys: impl IntoIterator<Item = Key>) {
        self.elements(DELETE_ELEMENTS, set, keys, |w, key| write_value(w, 1, key.as_slice()));
    }

    /// Spreads elements over as many messages as their attribute's length needs.
    fn elements<T>(
        &mut self,
        kind: u16,
        set: SetName<'_>,
        elements: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Writer, T),
    ) {
        let flags = if kind == NEW_ELEMENTS { libc::NLM_F_CREATE } else { 0 };
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            self.push(kind, flags, |w, table| {
                w.string(1, table);
                set.write(w, 2, 4);
                w.nest(3, |w| {
                    let start = w.bytes.len();
                    while w.bytes.len() - start < ELEMENTS_BYTES {
                        let Some(element) = elements.next() else { break };
                        w.nest(1, |w| write(w, element));
                    }
                });
            });
        }
    }

    fn push(&mut self, message: u16, flags: i32, fill: impl FnOnce(&mut Writer, &str)) {
        self.sequence += 1;
        self.latest = self.writer.bytes.len();
        let header = [self.family.number(), 0, 0, 0];
        let table = &self.table;
        self.writer.message(SUBSYSTEM << 8 | message, flag(libc::NLM_F_REQUEST | flags), self.sequence, &header, |w| {
            fill(w, table)
        });
    }

    /// Ends the transaction; nothing when it changes nothing.
    pub(super) fn finish(mut self) -> Option<Finished> {
        if self.is_empty() {
            return None;
        }
        // The kernel reports every refusal, and success only of messages that ask for it: asking once is enough.
        // (It could be asked of the end message, but only since Linux 6.10.)
        let flags = flag(libc::NLM_F_ACK) | wire::u16_at(&self.writer.bytes, self.latest + 6)?;
        self.writer.bytes[self.latest + 6..self.latest + 8].copy_from_slice(&flags.to_ne_bytes());
        self.writer.message(BATCH_END, flag(libc::NLM_F_REQUEST), self.sequence + 1, &batch_header(), |_| ());
        Some(Finished { writer: self.writer, family: self.family, table: self.table })
    }
}

/// A transaction that is ready to be sent.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) writer: Writer,
    family: Family,
    table: String,
}

impl Finished {
    pub(super) fn title(&self) -> String {
        format!("change nftables table {} {}", self.family.name(), self.table)
    }

    /// Says what the message of this number asks for.
    pub(super) fn describe(&self, sequence: u32) -> String {
        let found = wire::messages(&self.writer.bytes).find(|message| message.sequence == sequence);
        let Some(message) = found.filter(|message| message.kind >> 8 == SUBSYSTEM) else {
            return self.title();
        };
        debug_assert_eq!(HEADER, 16);
        let attributes = message.payload.get(FAMILY_HEADER..).unwrap_or_default();
        let (words, name) = match message.kind & 0xff {
            NEW_TABLE => ("add table", 0),
            DELETE_TABLE => ("delete table", 0),
            NEW_CHAIN => ("add chain", 3),
            DELETE_CHAIN => ("delete chain", 3),
            NEW_RULE => ("add a rule to chain", 2),
            DELETE_RULE => ("flush chain", 2),
            NEW_SET => ("add set", 2),
            DELETE_SET => ("delete set", 2),
            NEW_ELEMENTS => ("add elements to set", 2),
            DELETE_ELEMENTS => ("delete elements of set", 2),
            _ => ("change", 0),
        };
        let name = wire::attribute(attributes, name).map(wire::text).unwrap_or_default();
        let step = if name.is_empty() { words.to_owned() } else { format!("{words} {name}") };
        format!("{}: {step}", self.title())
    }
}

/// `struct nfgenmsg` of the messages around a batch: the subsystem in network byte order.
fn batch_header() -> [u8; FAMILY_HEADER] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

/// A comment the way `nft` stores it: type 0, a length, text with a zero byte.
fn comment_data(comment: &str) -> Vec<u8> {
    let mut data = vec![0, comment.len() as u8 + 1];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}
