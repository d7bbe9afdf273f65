//! From the caller's pointers to slices and text, with every check that can be made on a pointer.
//!
//! Null, misaligned and overlapping pointers, and sizes that are no multiple of an element, are errors; that a pointer leads to as many
//! bytes as its caller says is the one thing that only the caller can know.

use super::failure::Failure;
use crate::{Error, Kind};
use std::ffi::{CStr, c_char, c_void};
use std::slice;

/// Memory of the caller's: what it is called, where it starts, how long it is in bytes.
#[derive(Clone, Copy)]
pub(super) struct Region {
    pub name: &'static str,
    pub at: *const c_void,
    pub bytes: usize,
}

impl Region {
    /// How many elements of `T` there are, if it can hold any.
    fn check<T>(&self) -> Result<usize, Failure> {
        let Region { name, at, bytes } = *self;
        let size = size_of::<T>();
        if bytes % size != 0 {
            return Err(Failure::tensor(format!("{name} has {bytes} bytes, which is no multiple of its {size}-byte elements")));
        }
        if bytes > isize::MAX as usize || (at as usize).checked_add(bytes).is_none() {
            return Err(Failure::tensor(format!("{name} of {bytes} bytes does not fit into memory")));
        }
        if at.is_null() && bytes > 0 {
            return Err(Failure::pointer(format!("{name} is null; it must point to its {bytes} bytes")));
        }
        if !at.cast::<T>().is_aligned() {
            return Err(Failure::pointer(format!("{name} is not aligned to its {size}-byte elements")));
        }
        Ok(bytes / size)
    }

    /// The elements, to read.
    ///
    /// # Safety
    /// If `at` is not null, `bytes` bytes from there can be read, and nobody writes them, for `'a`.
    pub unsafe fn read<'a, T>(&self) -> Result<&'a [T], Failure> {
        let len = self.check::<T>()?;
        if len == 0 {
            return Ok(&[]);
        }
        // SAFETY: not null, aligned, and short enough by `check`; readable by the caller's word.
        Ok(unsafe { slice::from_raw_parts(self.at.cast::<T>(), len) })
    }

    /// The elements, to write.
    ///
    /// # Safety
    /// As [`Region::read`], and nobody else reads them either; they may be written.
    pub unsafe fn write<'a, T>(&self) -> Result<&'a mut [T], Failure> {
        let len = self.check::<T>()?;
        if len == 0 {
            return Ok(&mut []);
        }
        // SAFETY: not null, aligned, and short enough by `check`; ours alone by the caller's word.
        Ok(unsafe { slice::from_raw_parts_mut(self.at.cast::<T>().cast_mut(), len) })
    }

    /// Refuses memory that shares a byte with other memory.
    pub fn apart_from(&self, other: &Region) -> Result<(), Failure> {
        let (a, b) = (self.at as usize, other.at as usize);
        if a < b.saturating_add(other.bytes) && b < a.saturating_add(self.bytes) {
            return Err(Failure::tensor(format!("{} and {} overlap in memory; each needs memory of its own", self.name, other.name)));
        }
        Ok(())
    }
}

/// Text that ends with a zero byte; `None` if the pointer is null.
///
/// # Safety
/// If not null, the pointer leads to a zero byte through memory that can be read, and nobody writes, for `'a`.
pub(super) unsafe fn text<'a>(name: &str, at: *const c_char) -> Result<Option<&'a str>, Failure> {
    if at.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; ends with a zero byte by the caller's word.
    let bytes = unsafe { CStr::from_ptr(at) };
    match bytes.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(e) => Err(Error::new(Kind::Parse, format!("{name} is not UTF-8 from byte {} on", e.valid_up_to())).into()),
    }
}
