pub(crate) struct Uploads;
