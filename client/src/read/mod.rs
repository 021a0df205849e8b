pub(crate) struct Blocks;
