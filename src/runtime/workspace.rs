//! Scratch memory of runs.
//!
//! A workspace belongs to one run at a time. Callers may own one ([`crate::Kernel::workspace`]); otherwise `run` borrows one from
//! the kernel's [`Stash`], an array of slots that are taken and put back by atomic swaps: no lock, and no allocation unless more
//! runs are under way at once than ever before.

use crate::{Error, Kind, Result};
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Zeroed bytes, aligned to a page, so that where they lie in the caches does not change from one kernel to the next.
///
/// Those that fill huge pages are mapped, and ask for them: the first write to each of 512 small pages costs more than what is written, and weights
/// that stream through the caches would need more translations than the processor holds.
pub struct Bytes {
    at: NonNull<u8>,
    len: usize,
    /// The mapping that they lie in, if they are not from the allocator.
    map: Option<MmapMut>,
}

const ALIGN: usize = 4096;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

impl Bytes {
    /// So many zero bytes.
    pub fn zeroed(len: usize) -> Result<Bytes> {
        let failed = || Error::new(Kind::Codegen, format!("cannot allocate {len} bytes"));
        if len >= HUGE / 4 * 3 {
            return Bytes::mapped(len).ok_or_else(failed);
        }
        let layout = Layout::from_size_align(len.max(1), ALIGN).map_err(|_| failed())?;
        // SAFETY: the layout's size is at least 1.
        let at = unsafe { alloc_zeroed(layout) };
        Ok(Bytes { at: NonNull::new(at).ok_or_else(failed)?, len, map: None })
    }

    /// From the system, in huge pages as far as they are half used: clearing one takes no longer than clearing a fifth of it in small ones.
    fn mapped(len: usize) -> Option<Bytes> {
        let whole = len.checked_next_multiple_of(HUGE)?;
        let mut map = MmapMut::map_anon(whole.checked_add(HUGE)?).ok()?;
        let skip = map.as_ptr().align_offset(HUGE);
        #[cfg(target_os = "linux")]
        {
            let used = if whole - len <= HUGE / 2 { whole } else { whole - HUGE };
            // Only advice: where there are no huge pages, there are small ones.
            let _ = map.advise_range(memmap2::Advice::HugePage, skip, used);
        }
        let at = NonNull::from(map.get_mut(skip..skip.checked_add(len)?)?).cast();
        Some(Bytes { at, len, map: Some(map) })
    }

    /// Where they start.
    pub fn as_ptr(&self) -> *mut u8 {
        self.at.as_ptr()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if self.map.is_some() {
            return;
        }
        let layout = Layout::from_size_align(self.len.max(1), ALIGN).expect("the layout was made before");
        // SAFETY: allocated in `zeroed` with this layout, and freed only here.
        unsafe { dealloc(self.at.as_ptr(), layout) }
    }
}

// SAFETY: `Bytes` owns its memory; access goes through pointers whose users keep them apart.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

/// The scratch memory of one run, for all its threads.
pub struct Workspace {
    pub(super) bytes: Bytes,
}

impl Workspace {
    /// An empty one; a run enlarges it as it needs.
    pub(super) fn empty() -> Result<Workspace> {
        Ok(Workspace { bytes: Bytes::zeroed(0)? })
    }
    /// Makes it at least so many bytes long. Allocates only if it is shorter.
    pub(super) fn reserve(&mut self, len: usize) -> Result<()> {
        if self.bytes.len() < len {
            self.bytes = Bytes::zeroed(len)?;
        }
        Ok(())
    }
    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

const SLOTS: usize = 64;

/// Workspaces that no run is using.
pub struct Stash {
    slots: [AtomicPtr<Workspace>; SLOTS],
}

impl Stash {
    /// No workspaces yet.
    pub fn new() -> Stash {
        Stash { slots: [const { AtomicPtr::new(null_mut()) }; SLOTS] }
    }
    /// Takes one, or makes one.
    pub fn take(&self) -> Result<Box<Workspace>> {
        for slot in &self.slots {
            let p = slot.swap(null_mut(), Ordering::Acquire);
            if !p.is_null() {
                // SAFETY: a pointer in a slot comes from `Box::into_raw` in `put`, and the swap made it ours alone.
                return Ok(unsafe { Box::from_raw(p) });
            }
        }
        Ok(Box::new(Workspace::empty()?))
    }
    /// Puts one back; it is freed if every slot is taken.
    pub fn put(&self, w: Box<Workspace>) {
        let p = Box::into_raw(w);
        for slot in &self.slots {
            if slot.compare_exchange(null_mut(), p, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
        }
        // SAFETY: no slot took the pointer, so it is still ours.
        drop(unsafe { Box::from_raw(p) });
    }
}

impl Drop for Stash {
    fn drop(&mut self) {
        for slot in &self.slots {
            let p = slot.swap(null_mut(), Ordering::Acquire);
            if !p.is_null() {
                // SAFETY: as in `take`.
                drop(unsafe { Box::from_raw(p) });
            }
        }
    }
}
