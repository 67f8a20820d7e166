//! Messages from tables: what [`crate::messages!`] and [`crate::oneofs!`] make, and how each kind of field is carried.
//!
//! Fields that are not in a table are skipped. What a decoded message may hold is bounded: [`MAX_DEPTH`] messages within
//! each other, [`MAX_ELEMENTS`] elements of lists, maps and messages altogether.

use crate::wire::{self, FIXED_32, FIXED_64, Payload, VARINT, WireError};
use bytes::Bytes;
use std::collections::BTreeMap;

const MAX_DEPTH: u32 = 32;
/// Elements can be a hundred times as big in memory as they are on the wire.
const MAX_ELEMENTS: u32 = 1 << 18;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a field has another form than it should have")]
    Form,
    #[error("a text is no UTF-8")]
    Text,
    #[error("messages lie more than {MAX_DEPTH} deep within each other")]
    Deep,
    #[error("there are more than {MAX_ELEMENTS} elements")]
    Elements,
}

/// What may still be decoded.
#[derive(Debug)]
pub struct Decoder {
    depth: u32,
    elements: u32,
}

impl Decoder {
    fn element(&mut self) -> Result<(), DecodeError> {
        self.elements = self.elements.checked_sub(1).ok_or(DecodeError::Elements)?;
        Ok(())
    }

    fn nested<M: Message>(&mut self, into: &mut M, bytes: &[u8]) -> Result<(), DecodeError> {
        self.element()?;
        self.depth = self.depth.checked_sub(1).ok_or(DecodeError::Deep)?;
        self.fields(into, bytes)?;
        self.depth += 1;
        Ok(())
    }

    fn fields<M: Message>(&mut self, into: &mut M, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut rest = bytes;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            into.merge(number, payload, self)?;
        }
        Ok(())
    }
}

/// A message of a table.
pub trait Message: Default + Send + Sync + 'static {
    fn write(&self, out: &mut Vec<u8>);

    /// Takes one field; one that the table does not have is skipped.
    ///
    /// # Errors
    /// [`DecodeError`]
    fn merge(&mut self, number: u32, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError>;

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// Reads a message.
///
/// # Errors
/// [`DecodeError`]
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    let mut message = M::default();
    Decoder { depth: MAX_DEPTH, elements: MAX_ELEMENTS }.fields(&mut message, bytes)?;
    Ok(message)
}

/// How a field of this type is carried.
pub trait Field {
    fn write(&self, number: u32, out: &mut Vec<u8>);
    /// # Errors
    /// [`DecodeError`]
    fn merge(&mut self, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError>;
}

/// One value: of a list, of a map, or of a field that may be absent.
pub trait Item: Default {
    /// The form of numbers, which may come packed into one field when they are a list.
    const PACKED: Option<u64> = None;
    fn is_default(&self) -> bool;
    /// Writes the tag and the value, the default too.
    fn put(&self, number: u32, out: &mut Vec<u8>);
    /// # Errors
    /// [`DecodeError`]
    fn take(&mut self, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError>;
}

/// One of several fields (`oneof`); see [`crate::oneofs!`].
pub trait Oneof: Sized {
    fn write(&self, out: &mut Vec<u8>);
    /// Whether the field is one of these; then it replaces what was there.
    ///
    /// # Errors
    /// [`DecodeError`]
    fn merge(
        into: &mut Option<Self>,
        number: u32,
        payload: Payload<'_>,
        decoder: &mut Decoder,
    ) -> Result<bool, DecodeError>;
}

macro_rules! varints {
    ($($type:ty: $to:expr, $from:expr;)*) => {$(
        impl Item for $type {
            const PACKED: Option<u64> = Some(VARINT);
            fn is_default(&self) -> bool {
                *self == Self::default()
            }
            fn put(&self, number: u32, out: &mut Vec<u8>) {
                wire::put_varint(out, number, $to(*self));
            }
            fn take(&mut self, payload: Payload<'_>, _: &mut Decoder) -> Result<(), DecodeError> {
                let Payload::Varint(number) = payload else { return Err(DecodeError::Form) };
                *self = $from(number);
                Ok(())
            }
        }
        scalar!($type);
    )*};
}

macro_rules! fixed {
    ($($type:ty: $form:expr, $payload:ident;)*) => {$(
        impl Item for $type {
            const PACKED: Option<u64> = Some($form);
            fn is_default(&self) -> bool {
                self.to_bits() == 0
            }
            fn put(&self, number: u32, out: &mut Vec<u8>) {
                wire::put_tag(out, number, $form);
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(&mut self, payload: Payload<'_>, _: &mut Decoder) -> Result<(), DecodeError> {
                let Payload::$payload(bits) = payload else { return Err(DecodeError::Form) };
                *self = Self::from_bits(bits);
                Ok(())
            }
        }
        scalar!($type);
    )*};
}

/// Fields without presence: the default is left out.
macro_rules! scalar {
    ($type:ty) => {
        impl Field for $type {
            fn write(&self, number: u32, out: &mut Vec<u8>) {
                if !self.is_default() {
                    self.put(number, out);
                }
            }
            fn merge(&mut self, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError> {
                self.take(payload, decoder)
            }
        }
    };
}

varints! {
    bool: u64::from, |n| n != 0;
    u32: u64::from, |n| n as u32;
    u64: u64::from, |n| n;
    // Negative numbers take ten bytes, as if they had 64 bits.
    i32: |n| i64::from(n) as u64, |n| n as i32;
    i64: |n| n as u64, |n| n as i64;
}
fixed! {
    f32: FIXED_32, Fixed32;
    f64: FIXED_64, Fixed64;
}

impl Item for String {
    fn is_default(&self) -> bool {
        self.is_empty()
    }
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        wire::put_bytes(out, number, self.as_bytes());
    }
    fn take(&mut self, payload: Payload<'_>, _: &mut Decoder) -> Result<(), DecodeError> {
        let Payload::Bytes(bytes) = payload else { return Err(DecodeError::Form) };
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Text)?.clone_into(self);
        Ok(())
    }
}
scalar!(String);

impl Item for Bytes {
    fn is_default(&self) -> bool {
        self.is_empty()
    }
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        wire::put_bytes(out, number, self);
    }
    fn take(&mut self, payload: Payload<'_>, _: &mut Decoder) -> Result<(), DecodeError> {
        let Payload::Bytes(bytes) = payload else { return Err(DecodeError::Form) };
        *self = Self::copy_from_slice(bytes);
        Ok(())
    }
}
scalar!(Bytes);

impl<M: Message> Item for M {
    fn is_default(&self) -> bool {
        false
    }
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        wire::put_nested(out, number, |out| self.write(out));
    }
    fn take(&mut self, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError> {
        let Payload::Bytes(bytes) = payload else { return Err(DecodeError::Form) };
        decoder.nested(self, bytes)
    }
}

impl<M: Message> Message for Box<M> {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
    fn merge(&mut self, number: u32, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError> {
        (**self).merge(number, payload, decoder)
    }
}

impl<T: Item> Field for Option<T> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.put(number, out);
        }
    }
    /// A message that comes in parts is put together.
    fn merge(&mut self, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError> {
        self.get_or_insert_default().take(payload, decoder)
    }
}

impl<T: Item> Field for Vec<T> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        // Readers take numbers packed and one by one.
        self.iter().for_each(|item| item.put(number, out));
    }

    fn merge(&mut self, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError> {
        if let (Some(form), Payload::Bytes(mut packed)) = (T::PACKED, payload) {
            while !packed.is_empty() {
                let payload = wire::untagged(form, &mut packed)?;
                self.push(one(payload, decoder)?);
            }
            return Ok(());
        }
        self.push(one(payload, decoder)?);
        Ok(())
    }
}

fn one<T: Item>(payload: Payload<'_>, decoder: &mut Decoder) -> Result<T, DecodeError> {
    decoder.element()?;
    let mut item = T::default();
    item.take(payload, decoder)?;
    Ok(item)
}

impl<K: Item + Ord, V: Item> Field for BTreeMap<K, V> {
    fn write(&self, number: u32, out: &mut Vec<u8>) {
        for (key, value) in self {
            wire::put_nested(out, number, |out| {
                key.put(1, out);
                value.put(2, out);
            });
        }
    }

    fn merge(&mut self, payload: Payload<'_>, decoder: &mut Decoder) -> Result<(), DecodeError> {
        let Payload::Bytes(mut entry) = payload else { return Err(DecodeError::Form) };
        decoder.element()?;
        let (mut key, mut value) = (K::default(), V::default());
        while let Some((number, payload)) = wire::next(&mut entry)? {
            match number {
                1 => key.take(payload, decoder)?,
                2 => value.take(payload, decoder)?,
                _ => {}
            }
        }
        self.insert(key, value);
        Ok(())
    }
}

/// Makes messages of a table: number, name and type of each field; the `oneof`s after them. Every line ends with
/// a comma.
#[macro_export]
macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        $message:ident { $($number:literal $field:ident: $type:ty,)* $(oneof $one:ident: $oneof:ty,)* }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $message {
            $(pub $field: $type,)*
            $(pub $one: ::std::option::Option<$oneof>,)*
        }

        impl $crate::Message for $message {
            #[allow(unused_variables)]
            fn write(&self, out: &mut ::std::vec::Vec<u8>) {
                $($crate::Field::write(&self.$field, $number, out);)*
                $(if let Some(one) = &self.$one {
                    $crate::Oneof::write(one, out);
                })*
            }

            #[allow(unused_variables)]
            fn merge(
                &mut self,
                number: u32,
                payload: $crate::wire::Payload<'_>,
                decoder: &mut $crate::Decoder,
            ) -> ::std::result::Result<(), $crate::DecodeError> {
                match number {
                    $($number => $crate::Field::merge(&mut self.$field, payload, decoder),)*
                    _ => {
                        $(if <$oneof as $crate::Oneof>::merge(&mut self.$one, number, payload, decoder)? {
                            return Ok(());
                        })*
                        Ok(())
                    }
                }
            }
        }
    )*};
}

/// Makes the `oneof`s of messages: number, name and type of each variant.
#[macro_export]
macro_rules! oneofs {
    ($(
        $(#[$meta:meta])*
        $oneof:ident { $($number:literal $variant:ident($type:ty)),* $(,)? }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $oneof { $($variant($type)),* }

        impl $crate::Oneof for $oneof {
            fn write(&self, out: &mut ::std::vec::Vec<u8>) {
                match self {
                    $(Self::$variant(value) => $crate::Item::put(value, $number, out),)*
                }
            }

            fn merge(
                into: &mut ::std::option::Option<Self>,
                number: u32,
                payload: $crate::wire::Payload<'_>,
                decoder: &mut $crate::Decoder,
            ) -> ::std::result::Result<bool, $crate::DecodeError> {
                match number {
                    $($number => {
                        let mut value = <$type>::default();
                        $crate::Item::take(&mut value, payload, decoder)?;
                        *into = Some(Self::$variant(value));
                    })*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::messages! {
        Inner { 1 text: String, 2 deeper: Option<Box<Inner>>, }
        All {
            1 flag: bool,
            2 small: i32,
            3 big: u64,
            4 text: String,
            5 raw: Bytes,
            6 inner: Option<Inner>,
            7 numbers: Vec<i64>,
            8 inners: Vec<Inner>,
            9 labels: BTreeMap<String, String>,
            10 share: f64,
            11 maybe: Option<i32>,
            300 texts: Vec<String>,
            oneof choice: Choice,
        }
    }
    crate::oneofs! {
        Choice { 20 Number(u32), 21 Inside(Inner), }
    }

    fn inner(text: &str) -> Inner {
        Inner { text: text.to_owned(), deeper: None }
    }

    fn full() -> All {
        All {
            flag: true,
            small: -5,
            big: u64::MAX,
            text: "äöü".to_owned(),
            raw: Bytes::from_static(&[0, 255]),
            inner: Some(Inner { text: String::new(), deeper: Some(Box::new(inner("x"))) }),
            numbers: vec![0, -1, 1 << 40],
            inners: vec![inner(""), inner(&"long ".repeat(100))],
            labels: BTreeMap::from([("a".to_owned(), "1".to_owned()), (String::new(), String::new())]),
            share: 0.25,
            maybe: Some(0),
            texts: vec![String::new(), "b".to_owned()],
            choice: Some(Choice::Inside(inner("chosen"))),
        }
    }

    #[test]
    fn messages_come_back_as_they_went() {
        assert_eq!(decode::<All>(&full().encode()), Ok(full()));
        assert_eq!(All::default().encode(), Vec::<u8>::new());
        assert_eq!(All { small: 300, ..All::default() }.encode(), [0x10, 0xac, 0x02]);
    }

    #[test]
    fn unknown_fields_are_skipped_and_packed_numbers_read() {
        let mut bytes = full().encode();
        wire::put_bytes(&mut bytes, 99, b"later");
        wire::put_bytes(&mut bytes, 7, &[1, 2]);
        let mut expected = full();
        expected.numbers.extend([1, 2]);
        assert_eq!(decode::<All>(&bytes), Ok(expected));
    }

    #[test]
    fn the_last_of_several_counts() {
        let mut bytes = full().encode();
        Item::put(&7u32, 20, &mut bytes);
        assert_eq!(decode::<All>(&bytes).unwrap().choice, Some(Choice::Number(7)));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        assert_eq!(decode::<Inner>(&[0x0a, 1, 0xff]), Err(DecodeError::Text));
        assert_eq!(decode::<Inner>(&[0x08, 1]), Err(DecodeError::Form));
        assert_eq!(decode::<Inner>(&[0x0a, 9]), Err(DecodeError::Wire(WireError::Truncated)));
        let mut deep = Vec::new();
        for _ in 0..=MAX_DEPTH {
            let mut outer = Vec::new();
            wire::put_bytes(&mut outer, 2, &deep);
            deep = outer;
        }
        assert_eq!(decode::<Inner>(&deep), Err(DecodeError::Deep));
        let many = [0xc2, 0x00].repeat(MAX_ELEMENTS as usize + 1);
        assert!(decode::<All>(&many).is_err());
        let many = [0x42, 0x00].repeat(MAX_ELEMENTS as usize + 1);
        assert_eq!(decode::<All>(&many), Err(DecodeError::Elements));
    }

    #[test]
    fn noise_never_panics() {
        pintle_noise::feed(&[&full().encode()], 5000, |bytes| {
            if let Ok(message) = decode::<All>(bytes) {
                assert_eq!(decode::<All>(&message.encode()).map(|m| m.encode()), Ok(message.encode()));
            }
        });
    }
}
