//! Facts about the terminal behind a stream.

/// Columns of the terminal behind a stream; `None` where there is none, or where it does not tell.
#[cfg(unix)]
pub(crate) fn columns(stream: &impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
}

/// Columns of the terminal behind a stream: elsewhere nobody is asked, and the terminal breaks lines itself.
#[cfg(not(unix))]
pub(crate) fn columns<S>(_: &S) -> Option<usize> {
    None
}
