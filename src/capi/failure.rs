//! What the C ABI reports: a code, and the sentence that goes with it, per thread.
//!
//! Needs the outcome of a call; leaves its code and remembers its sentence until the next call on the same thread. A success allocates
//! nothing. A panic, which would be a bug of this library, ends here too: it must not unwind into C.

use crate::{Error, Kind};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A call that failed.
pub(super) struct Failure {
    pub code: c_int,
    pub message: String,
}

impl Failure {
    /// A pointer that is null or not aligned.
    pub fn pointer(message: impl Into<String>) -> Failure {
        Failure { code: super::POLYPHASE_ERROR_POINTER, message: message.into() }
    }

    /// A tensor that does not fit.
    pub fn tensor(message: impl Into<String>) -> Failure {
        Error::new(Kind::Tensor, message).into()
    }

    fn panic(payload: &(dyn Any + Send)) -> Failure {
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let message = format!("internal error, a bug in polyphase: {}", text.unwrap_or("it panicked without a message"));
        Failure { code: super::POLYPHASE_ERROR_INTERNAL, message }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let code = match e.kind {
            Kind::Problem => super::POLYPHASE_ERROR_PROBLEM,
            Kind::Parse => super::POLYPHASE_ERROR_PARSE,
            Kind::Tensor => super::POLYPHASE_ERROR_TENSOR,
            Kind::Options => super::POLYPHASE_ERROR_OPTIONS,
            Kind::Ir => super::POLYPHASE_ERROR_IR,
            Kind::Codegen => super::POLYPHASE_ERROR_CODEGEN,
            Kind::Io => super::POLYPHASE_ERROR_IO,
        };
        Failure { code, message: e.message }
    }
}

thread_local! {
    static LAST: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// Runs a call, remembers its sentence if it fails, and gives its code.
pub(super) fn report(call: impl FnOnce() -> Result<(), Failure>) -> c_int {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(payload) => {
            let failure = Failure::panic(&*payload);
            // Dropping what was thrown could throw again.
            std::mem::forget(payload);
            Some(failure)
        }
    };
    let (code, text) = match failure {
        None => (super::POLYPHASE_OK, None),
        Some(f) => (f.code, CString::new(f.message.replace('\0', "\u{fffd}")).ok()),
    };
    // A thread that is ending may have lost its slot; then only the code is left.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
    code
}

/// The sentence of this thread's last call, empty if it succeeded.
pub(super) fn last() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ref().map_or(c"".as_ptr(), |text| text.as_ptr())).unwrap_or(c"".as_ptr())
}
