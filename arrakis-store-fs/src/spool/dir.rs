//! A spool directory with what its parts need to change it.

use std::sync::Arc;

use arrakis_core::base::clock::{Clock, SystemClock, Timestamp};

use crate::spool::durability::{FileSystem, RealFileSystem};
use crate::spool::layout::Layout;

/// A spool directory, the file system that changes it, and the clock that its times come from. Clones share both.
#[derive(Debug, Clone)]
pub struct SpoolDir {
    pub(crate) layout: Layout,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl SpoolDir {
    /// The spool of `layout` on the machine's own file system, by the machine's clock.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, fs: Arc::new(RealFileSystem), clock: Arc::new(SystemClock) }
    }

    /// The same spool, changed through `fs`.
    #[must_use]
    pub fn with_file_system(self, fs: Arc<dyn FileSystem>) -> Self {
        Self { fs, ..self }
    }

    /// The same spool, with times from `clock`.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The paths.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl From<Layout> for SpoolDir {
    fn from(layout: Layout) -> Self {
        Self::new(layout)
    }
}
