//! Panics inside a world's tasks: the runtime turns them into a join error that nobody reads, so they are noted here. An
//! assertion that fails inside the real code is a finding.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static NOTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on panics on this thread are noted. Other threads panic as ever.
pub fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = NOTED.with_borrow_mut(|noted| noted.as_mut().map(|noted| noted.push(info.to_string())).is_some());
            if !noted {
                usual(info);
            }
        }));
    });
    NOTED.with_borrow_mut(|noted| *noted = Some(vec![]));
}

/// What was noted since the last call.
pub fn take() -> Vec<String> {
    NOTED.with_borrow_mut(|noted| noted.as_mut().map(std::mem::take).unwrap_or_default())
}

/// Panics on this thread are reported as ever again.
pub fn unwatch() {
    NOTED.with_borrow_mut(|noted| *noted = None);
}
