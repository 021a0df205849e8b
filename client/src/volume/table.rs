use farshore_types::Ino;
#[derive(Debug, Default)]
pub(crate) struct OpenInodes {}
impl OpenInodes {
    pub fn forget(&self, _ino: Ino) {}
    pub fn forget_all(&self) {}
}
