//! Rename, as renameat2 has it: replace, do not replace, exchange.

use super::op::{MAX_LINKS, check_name};
use super::{Apply, Fail};
use crate::change::Touched;
use crate::inode::Inode;
use crate::kv::{Space, StorageError};
use crate::row::Dentry;
use farshore_types::{ErrorKind, Ino, NodeKind, RenameMode, Reply};

/// Directories above one that a rename walks up; what lies deeper is not moved between directories.
pub const MAX_DEPTH: usize = 65_536;

/// A name in a directory.
type Place<'a> = (Ino, &'a [u8]);

/// The directories of both names; `to` is `None` when they are one.
struct Parents {
    from: Inode,
    to: Option<Inode>,
}

impl Parents {
    fn to(&mut self) -> &mut Inode {
        self.to.as_mut().unwrap_or(&mut self.from)
    }
}

impl Apply<'_> {
    pub(super) fn rename(&mut self, old: Place, new: Place, mode: RenameMode) -> Result<Reply, Fail> {
        check_name(old.1)?;
        check_name(new.1)?;
        let from = self.directory(old.0)?;
        let to = if old.0 == new.0 { None } else { Some(self.directory(new.0)?) };
        let parents = Parents { from, to };
        let source = self.dentry(old.0, old.1)?.ok_or(ErrorKind::NotFound)?;
        self.check_not_below(source, old.0, new.0)?;
        match (mode, self.dentry(new.0, new.1)?) {
            (RenameMode::NoReplace, Some(_)) => Err(ErrorKind::Exists.into()),
            (RenameMode::Exchange, None) => Err(ErrorKind::NotFound.into()),
            // Two names of one inode: POSIX leaves both.
            (_, Some(target)) if target.ino == source.ino => Ok(Reply::Done),
            (RenameMode::Exchange, Some(target)) => self.exchange(old, new, source, target, parents),
            (_, target) => self.replace(old, new, source, target, parents),
        }
    }

    /// A directory cannot move into itself or below: `to` must not lie under it.
    fn check_not_below(&self, moved: Dentry, from: Ino, to: Ino) -> Result<(), Fail> {
        if moved.kind != NodeKind::Directory || from == to {
            return Ok(());
        }
        let mut at = to;
        for _ in 0..MAX_DEPTH {
            if at == moved.ino {
                return Err(ErrorKind::InvalidArgument.into());
            }
            if at == Ino::ROOT {
                return Ok(());
            }
            at = self.named_inode(at)?.parent;
        }
        Err(ErrorKind::InvalidArgument.into())
    }

    fn replace(
        &mut self,
        old: Place,
        new: Place,
        source: Dentry,
        target: Option<Dentry>,
        mut parents: Parents,
    ) -> Result<Reply, Fail> {
        let moves_directory = source.kind == NodeKind::Directory;
        let drops_directory = target.is_some_and(|target| target.kind == NodeKind::Directory);
        if let Some(target) = target {
            match (moves_directory, drops_directory) {
                (true, false) => return Err(ErrorKind::NotDirectory.into()),
                (false, true) => return Err(ErrorKind::IsDirectory.into()),
                (true, true) => self.check_droppable(target.ino)?,
                (false, false) => {}
            }
        }
        if moves_directory && !drops_directory && old.0 != new.0 && parents.to().nlink >= MAX_LINKS {
            return Err(ErrorKind::TooManyLinks.into());
        }
        self.delete_entry(old.0, old.1)?;
        match target {
            Some(target) if drops_directory => self.drop_directory(target.ino)?,
            Some(target) => self.drop_link(target.ino, new.0)?,
            None => {}
        }
        self.put_entry(new.0, new.1, source)?;
        self.relink(source.ino, old.0, new.0)?;
        parents.from.nlink -= u32::from(moves_directory);
        parents.to().nlink += u32::from(moves_directory);
        parents.to().nlink -= u32::from(drops_directory);
        self.put_parents(old.0, new.0, parents)?;
        Ok(Reply::Done)
    }

    fn exchange(&mut self, old: Place, new: Place, source: Dentry, target: Dentry, mut parents: Parents) -> Result<Reply, Fail> {
        self.check_not_below(target, new.0, old.0)?;
        let [source_directory, target_directory] = [source, target].map(|dentry| u32::from(dentry.kind == NodeKind::Directory));
        if old.0 != new.0 {
            let overflows = |parent: &Inode, gains: u32, loses: u32| parent.nlink - loses + gains > MAX_LINKS;
            if overflows(&parents.from, target_directory, source_directory)
                || overflows(parents.to(), source_directory, target_directory)
            {
                return Err(ErrorKind::TooManyLinks.into());
            }
        }
        self.put_entry(old.0, old.1, target)?;
        self.put_entry(new.0, new.1, source)?;
        self.relink(source.ino, old.0, new.0)?;
        self.relink(target.ino, new.0, old.0)?;
        parents.from.nlink = parents.from.nlink - source_directory + target_directory;
        let to = parents.to();
        to.nlink = to.nlink - target_directory + source_directory;
        self.put_parents(old.0, new.0, parents)?;
        Ok(Reply::Done)
    }

    fn put_parents(&mut self, from: Ino, to: Ino, parents: Parents) -> Result<(), StorageError> {
        if let Some(inode) = parents.to {
            self.put_modified(to, inode)?;
        }
        self.put_modified(from, parents.from)
    }

    /// A name of the inode went from one directory to the other.
    fn relink(&mut self, ino: Ino, from: Ino, to: Ino) -> Result<(), StorageError> {
        let mut inode = self.named_inode(ino)?;
        if inode.nlink == 0 {
            return Err(StorageError::damaged(Space::Shared, &crate::key::inode(ino), "it has a name and no link"));
        }
        if inode.is_directory() || inode.nlink == 1 {
            inode.parent = to;
        } else if from != to {
            self.count_link(ino, from, false)?;
            self.count_link(ino, to, true)?;
        }
        inode.changed(self.now, self.index);
        self.put_inode(ino, &inode)?;
        self.touch(Touched::Inode(ino));
        Ok(())
    }
}
