//! Protobuf's wire format, read without copying and written without intermediate messages.
//!
//! A message is a sequence of fields, each a tag (field number × 8 + wire type) and a value:
//! varint (0), eight bytes (1), length and bytes (2) or four bytes (5). Groups (3, 4) are not used
//! by any message here and are refused.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

/// Why bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ends inside a field.
    #[error("message ends inside a field, {0} bytes before its end")]
    Truncated(usize),
    /// A varint has more than ten bytes.
    #[error("varint longer than 10 bytes, {0} bytes before the end of its message")]
    Varint(usize),
    /// A tag has field number 0 or a wire type that is not used.
    #[error("bad field tag {0}")]
    Tag(u64),
    /// A field has another wire type than its message declares.
    #[error("field {0} has an unexpected wire type")]
    Type(u32),
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1, little endian.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5, little endian.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of field `field`, which must be of wire type 2.
    ///
    /// # Errors
    /// When it is of another type.
    #[inline]
    pub fn bytes(self, field: u32) -> Result<&'a [u8], WireError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Type(field)),
        }
    }

    /// The number in field `field`, which must be a varint.
    ///
    /// # Errors
    /// When it is of another type.
    #[inline]
    pub fn varint(self, field: u32) -> Result<u64, WireError> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => Err(WireError::Type(field)),
        }
    }

    /// The float in field `field`, which must be of wire type 1.
    ///
    /// # Errors
    /// When it is of another type.
    #[inline]
    pub fn double(self, field: u32) -> Result<f64, WireError> {
        match self {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(WireError::Type(field)),
        }
    }
}

/// Reads the fields of one message in order.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `message`.
    #[inline]
    pub fn new(message: &'a [u8]) -> Self {
        Reader { left: message }
    }

    /// What has not been read yet.
    #[inline]
    pub fn left(&self) -> &'a [u8] {
        self.left
    }

    /// The next field's number and value, `None` at the end.
    ///
    /// # Errors
    /// When the bytes do not form a field.
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).map_err(|_| WireError::Tag(tag))?;
        if field == 0 {
            return Err(WireError::Tag(tag));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                let len =
                    usize::try_from(len).map_err(|_| WireError::Truncated(self.left.len()))?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::Tag(tag)),
        };
        Ok(Some((field, value)))
    }

    /// The next number, for packed fields.
    ///
    /// # Errors
    /// When there is none.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        if let [first, rest @ ..] = self.left
            && *first < 0x80
        {
            self.left = rest;
            return Ok(u64::from(*first));
        }
        self.varint_long()
    }

    fn varint_long(&mut self) -> Result<u64, WireError> {
        let mut number = 0u64;
        let mut left = self.left;
        for shift in (0..70).step_by(7) {
            let Some((byte, rest)) = left.split_first() else {
                return Err(WireError::Truncated(self.left.len()));
            };
            left = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                self.left = left;
                return Ok(number);
            }
        }
        Err(WireError::Varint(self.left.len()))
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, left) = self
            .left
            .split_at_checked(len)
            .ok_or(WireError::Truncated(self.left.len()))?;
        self.left = left;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, left) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated(self.left.len()))?;
        self.left = left;
        Ok(*taken)
    }
}

/// Appends a varint field; zero, protobuf's default, is left out.
pub fn put_varint(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put_raw_varint(out, u64::from(field) << 3);
        put_raw_varint(out, number);
    }
}

/// Appends a float field; positive zero, protobuf's default, is left out.
pub fn put_double(out: &mut Vec<u8>, field: u32, number: f64) {
    if number.to_bits() != 0 {
        put_raw_double(out, field, number);
    }
}

/// As [`put_double`], but zero is written too.
pub fn put_raw_double(out: &mut Vec<u8>, field: u32, number: f64) {
    put_raw_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&number.to_bits().to_le_bytes());
}

/// Appends a field of bytes, text or an encoded message. Empty ones are written too.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_raw_varint(out, u64::from(field) << 3 | 2);
    put_raw_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_raw_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut out = Vec::new();
        put_varint(&mut out, 2, 300);
        put_varint(&mut out, 3, u64::MAX);
        put_double(&mut out, 1, -0.5);
        put_bytes(&mut out, 100, b"text");
        let mut reader = Reader::new(&out);
        let mut fields = Vec::new();
        while let Some(field) = reader.field().unwrap() {
            fields.push(field);
        }
        assert_eq!(
            fields,
            [
                (2, Value::Varint(300)),
                (3, Value::Varint(u64::MAX)),
                (1, Value::Fixed64((-0.5f64).to_bits())),
                (100, Value::Bytes(b"text")),
            ]
        );
    }

    #[test]
    fn refuses_what_is_not_protobuf() {
        let read = |bytes: &[u8]| Reader::new(bytes).field().unwrap_err();
        assert_eq!(read(&[0x80]), WireError::Truncated(1));
        assert_eq!(read(&[0xff; 11]), WireError::Varint(11));
        assert_eq!(read(&[0x00]), WireError::Tag(0));
        assert_eq!(read(&[0x0b]), WireError::Tag(11));
        assert_eq!(read(&[0x0a, 5, 1]), WireError::Truncated(1));
        assert_eq!(
            read(&[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1
            ]),
            WireError::Truncated(0)
        );
        assert_eq!(read(&[0x09, 1, 2, 3]), WireError::Truncated(3));
    }
}
