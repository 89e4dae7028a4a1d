//! Recording of a pass, which blit and compute encoders have in common.

use super::command::{Command, Pass, PassKind};
use super::command_buffer::SimCommandBuffer;
use super::fence::SimFence;
use super::in_use::Use;
use super::object::cast;
use crate::rules;
use crate::runtime::lock;
use objc2::DefinedClass;
use objc2::Message;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2_metal::MTLFence;
use std::sync::{Arc, Mutex};

/// The pass that an encoder records.
pub(crate) struct Encoding {
    command_buffer: Retained<SimCommandBuffer>,
    /// `None` once `endEncoding` was called.
    pass: Mutex<Option<Pass>>,
}

impl Encoding {
    pub(crate) fn new(command_buffer: &SimCommandBuffer, name: &str, kind: PassKind) -> Self {
        let pass = Pass { name: name.to_owned(), kind, commands: Vec::new() };
        Self { command_buffer: command_buffer.retain(), pass: Mutex::new(Some(pass)) }
    }

    /// Breaks a rule after `endEncoding`.
    pub(crate) fn must_be_open(&self, call: &str) {
        rules::require(lock(&self.pass).is_some(), call, || "the encoder has ended".into());
    }

    pub(crate) fn record(&self, call: &str, command: Command) {
        self.must_be_open(call);
        if let Some(pass) = &mut *lock(&self.pass) {
            pass.commands.push(command);
        }
    }

    pub(crate) fn refer_to(&self, object: &AnyObject, usage: Use) {
        self.command_buffer.refer_to(object, usage);
    }

    pub(crate) fn update_fence(&self, fence: &ProtocolObject<dyn MTLFence>, call: &str) {
        let fence = self.fence(fence, call);
        self.record(call, Command::UpdateFence(fence));
    }

    pub(crate) fn wait_for_fence(&self, fence: &ProtocolObject<dyn MTLFence>, call: &str) {
        let fence = self.fence(fence, call);
        let updated = lock(&self.pass).as_ref().is_some_and(|pass| {
            pass.commands
                .iter()
                .any(|command| matches!(command, Command::UpdateFence(other) if Arc::ptr_eq(other, &fence)))
        });
        rules::require(!updated, call, || "this encoder updated the fence before".into());
        self.record(call, Command::WaitForFence(fence));
    }

    fn fence(&self, fence: &ProtocolObject<dyn MTLFence>, call: &str) -> Arc<super::fence::FenceClock> {
        let fence: &SimFence = cast(fence, call);
        let clock = fence.ivars().clock.clone();
        clock.use_on(self.command_buffer.queue_id(), call);
        self.refer_to(fence, fence.ivars().uses.begin());
        clock
    }

    pub(crate) fn end(&self, call: &str, name: String) {
        self.must_be_open(call);
        if let Some(pass) = lock(&self.pass).take() {
            self.command_buffer.close(Pass { name, ..pass });
        }
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        let open = lock(&self.pass).is_some();
        rules::require(!open, "release of an encoder", || "endEncoding was not called".into());
    }
}
