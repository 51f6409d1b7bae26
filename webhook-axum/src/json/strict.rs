//! What serde lets pass and callers should be told about.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

/// A structure given as an object. On their own, derived structures also read arrays, field by field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// An object in which no name comes twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unique<V>(pub(crate) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Fields<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    let value = map.next_value()?;
                    fields.insert(name, value);
                }
                Ok(Unique(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// An array of one to `MAX` items; reading stops at one more.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UpTo<T, const MAX: usize>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for UpTo<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = UpTo<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of 1 to {MAX} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    items.push(item);
                }
                if items.is_empty() {
                    return Err(A::Error::invalid_length(0, &self));
                }
                Ok(UpTo(items))
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Any value, in whose objects no name comes twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distinct(pub(crate) Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Distinct;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON")
            }

            fn visit_unit<E>(self) -> Result<Distinct, E> {
                Ok(Distinct(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Distinct, E> {
                Ok(Distinct(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Distinct, E> {
                Ok(Distinct(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Distinct, E> {
                Ok(Distinct(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Distinct, E> {
                let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
                Ok(Distinct(number.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Distinct, E> {
                Ok(Distinct(value.into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Distinct, E> {
                Ok(Distinct(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Distinct, A::Error> {
                let mut items = Vec::new();
                while let Some(Distinct(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Distinct(items.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Distinct, A::Error> {
                let Unique(fields) = Unique::<Self::Value>::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Distinct(Value::Object(fields.into_iter().map(|(name, value)| (name, value.0)).collect())))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
