//! Lists that are nearly always short: they are copied without an allocation.

use smallvec::SmallVec;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// A list of which `N` entries lie in place; more of them lie on the heap. It is read and changed as a slice.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Short<T: Copy, const N: usize>(SmallVec<[T; N]>);

impl<T: Copy, const N: usize> Short<T, N> {
    /// A list without entries.
    pub fn new() -> Self {
        Short(SmallVec::new())
    }
    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        self.0.push(entry);
    }
    /// Adds an entry before the one of that number.
    pub fn insert(&mut self, at: usize, entry: T) {
        self.0.insert(at, entry);
    }
    /// Takes the entry of that number out.
    pub fn remove(&mut self, at: usize) -> T {
        self.0.remove(at)
    }
    /// Keeps the entries that are wanted.
    pub fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        self.0.retain(|entry| wanted(entry));
    }
}

impl<T: Copy, const N: usize> Clone for Short<T, N> {
    fn clone(&self) -> Self {
        Short(SmallVec::from_slice(&self.0))
    }
}
impl<T: Copy, const N: usize> Default for Short<T, N> {
    fn default() -> Self {
        Self::new()
    }
}
impl<T: Copy + fmt::Debug, const N: usize> fmt::Debug for Short<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
impl<T: Copy, const N: usize> Deref for Short<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}
impl<T: Copy, const N: usize> DerefMut for Short<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}
impl<T: Copy, const N: usize> FromIterator<T> for Short<T, N> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        Short(entries.into_iter().collect())
    }
}
impl<T: Copy, const N: usize> From<&[T]> for Short<T, N> {
    fn from(entries: &[T]) -> Self {
        Short(SmallVec::from_slice(entries))
    }
}
impl<T: Copy, const N: usize> From<Vec<T>> for Short<T, N> {
    fn from(entries: Vec<T>) -> Self {
        entries.as_slice().into()
    }
}
impl<T: Copy, const N: usize> IntoIterator for Short<T, N> {
    type Item = T;
    type IntoIter = smallvec::IntoIter<[T; N]>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
impl<'a, T: Copy, const N: usize> IntoIterator for &'a Short<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
