//! What schemas know about object trees: the shipped OpenAPI documents, strict decoding, patches,
//! server-side apply and the structural schemas of custom resources.
//!
//! Pure functions over `serde_json::Value`. It refuses storage, HTTP, the clock and the rules of single kinds.

pub mod catalog;
mod cel;
pub mod conditions;
pub mod decode;
pub mod field_error;
pub mod managed_fields;
pub mod openapi_v2;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod structural;
mod types;

pub use catalog::{document, group_versions, type_of};
pub use decode::{DecodeError, Decoded};
pub use field_error::{FieldError, FieldErrorKind};
pub use patch::{PatchError, PatchKind, Patched};
pub use quantity::{Quantity, QuantityError};
pub use structural::Structural;
pub use types::{ListKind, Scalar, TypeRef, custom_type};
