//! A host call's access to the module: arguments, memory, and the request or plugin in context.

use super::abi::{CALL_RESPONSE_HEADERS, OK, REQUEST_HEADERS, REQUEST_TRAILERS, Status};
use super::host::Host;
use super::http::{Headers, Stream};
use super::process::Process;
use std::cell::RefMut;
use std::time::Duration;
use wasmi::{Caller, Error, Memory, Val};

/// A host call in progress.
pub(super) struct Guest<'a, 'b> {
    pub(super) caller: Caller<'a, Host>,
    pub(super) name: &'static str,
    pub(super) arguments: &'b [Val],
}

impl Guest<'_, '_> {
    pub(super) fn host(&mut self) -> &mut Host {
        self.caller.data_mut()
    }

    pub(super) fn process(&self) -> RefMut<'_, Process> {
        self.caller.data().process.borrow_mut()
    }

    pub(super) fn violation(&self, what: &str) -> Error {
        Error::new(format!(
            "the module {what}, in context {}",
            self.caller.data().effective
        ))
    }

    pub(super) fn number(&self, place: usize) -> u32 {
        self.arguments[place].i32().expect("an i32").cast_unsigned()
    }

    fn memory(&self) -> Memory {
        self.caller.data().memory.expect("a memory")
    }

    /// The bytes that this argument and the next, their length, refer to.
    pub(super) fn bytes(&mut self, place: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.number(place + 1) as usize];
        let read = self
            .memory()
            .read(&self.caller, self.number(place) as usize, &mut bytes);
        read.map_err(|_| {
            self.violation(&format!(
                "gives {} an address outside its memory",
                self.name
            ))
        })?;
        self.host().meter.bytes_out += bytes.len() as u64;
        Ok(bytes)
    }

    pub(super) fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Error> {
        let memory = self.memory();
        let written = memory.write(&mut self.caller, at as usize, bytes);
        written.map_err(|_| {
            self.violation(&format!(
                "gives {} an address outside its memory",
                self.name
            ))
        })?;
        self.host().meter.bytes_in += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn write_time(&mut self, place: usize, time: Duration) -> Result<Status, Error> {
        let nanoseconds = u64::try_from(time.as_nanos()).expect("a time in this era");
        self.write(self.number(place), &nanoseconds.to_le_bytes())?;
        Ok(OK)
    }

    /// Copies bytes to memory that the module allocates, and stores address and length where this
    /// argument and the next point.
    pub(super) fn give(&mut self, place: usize, bytes: &[u8]) -> Result<Status, Error> {
        let mut at = 0;
        if !bytes.is_empty() {
            let allocate = self.caller.data().allocate.expect("an allocator");
            at = allocate.call(&mut self.caller, bytes.len() as u32)?;
            self.write(at, bytes)?;
        }
        self.write(self.number(place), &at.to_le_bytes())?;
        self.write(self.number(place + 1), &(bytes.len() as u32).to_le_bytes())?;
        Ok(OK)
    }

    pub(super) fn effective(&mut self) -> Option<&mut Stream> {
        let host = self.host();
        host.streams.get_mut(&host.effective)
    }

    pub(super) fn map(&mut self, map: u32) -> Option<&mut Headers> {
        match map {
            REQUEST_HEADERS => self.effective().map(|stream| &mut stream.headers),
            REQUEST_TRAILERS => self.effective().map(|stream| &mut stream.trailers),
            CALL_RESPONSE_HEADERS => self
                .host()
                .answer
                .as_mut()
                .map(|answer| &mut answer.headers),
            _ => None,
        }
    }
}
