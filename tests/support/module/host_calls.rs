//! The host calls of the module, answered like Envoy's. An unknown call fails the test.

use super::abi::{
    BAD_ARGUMENT, CALL_RESPONSE_BODY, INTERNAL_FAILURE, NOT_FOUND, OK, PLUGIN_CONFIGURATION,
    REQUEST_HEADERS, Status, pairs, serialised,
};
use super::guest::Guest;
use super::http::{Call, Fate, Reply, text};
use super::signature::verify_signature;
use std::time::Duration;
use wasmi::Error;

impl Guest<'_, '_> {
    /// Makes the call like Envoy. An error is a breach of the ABI and traps.
    pub(super) fn call(&mut self) -> Result<Status, Error> {
        let name = self.name;
        *self.host().meter.calls.entry(name).or_default() += 1;
        // A refused HTTP call is recorded.
        if let Some(status) = self.host().refused.get(name)
            && name != "proxy_http_call"
        {
            return Ok(*status);
        }
        match name {
            "proxy_log" => self.log(),
            "proxy_get_current_time_nanoseconds" => {
                let wall = self.process().wall;
                self.write_time(0, wall)
            }
            "clock_time_get" => {
                let monotonic = self.number(0) == 1;
                let time = if monotonic {
                    self.process().steady
                } else {
                    self.process().wall
                };
                self.write_time(2, time)
            }
            "proxy_set_tick_period_milliseconds" => self.set_tick(),
            "proxy_get_buffer_bytes" => self.buffer(),
            "proxy_get_header_map_pairs" => match self.map(self.number(0)) {
                Some(map) => {
                    let map = serialised(map);
                    self.give(1, &map)
                }
                None => Ok(BAD_ARGUMENT),
            },
            "proxy_get_header_map_value" => self.header(),
            "proxy_replace_header_map_value" => {
                let (name, value) = (self.bytes(1)?, self.bytes(3)?);
                self.edit(&name, Some(value))
            }
            "proxy_remove_header_map_value" => {
                let name = self.bytes(1)?;
                self.edit(&name, None)
            }
            "proxy_continue_stream" => self.resume(),
            "proxy_send_local_response" => self.reply(),
            "proxy_get_property" => self.property(),
            "proxy_set_property" => self.note(),
            "proxy_set_effective_context" => {
                let id = self.number(0);
                let host = self.host();
                if !host.roots.contains_key(&id) && !host.streams.contains_key(&id) {
                    return Ok(BAD_ARGUMENT);
                }
                host.effective = id;
                Ok(OK)
            }
            "proxy_get_shared_data" => {
                let key = self.bytes(0)?;
                let Some((value, version)) = self.process().shared(&key) else {
                    return Ok(NOT_FOUND);
                };
                self.write(self.number(4), &version.to_le_bytes())?;
                self.give(2, &value)
            }
            "proxy_set_shared_data" => self.share(),
            "proxy_define_metric" => {
                let (kind, name) = (self.number(0), text(&self.bytes(1)?));
                let id = self.process().define(name, kind) as u32;
                self.write(self.number(3), &id.to_le_bytes())?;
                Ok(OK)
            }
            "proxy_increment_metric" => self.increment(),
            "proxy_http_call" => self.dispatch(),
            "proxy_call_foreign_function" => match self.bytes(0)?.as_slice() {
                b"verify_signature" => {
                    let verdict = verify_signature(&self.bytes(2)?);
                    let mut process = self.host().process.borrow_mut();
                    let verification = process.verification;
                    process.steady += verification;
                    drop(process);
                    self.give(4, &verdict)
                }
                _ => Ok(NOT_FOUND),
            },
            "environ_sizes_get" => {
                let variables = self.host().environment.clone();
                self.write(self.number(0), &(variables.len() as u32).to_le_bytes())?;
                self.write(
                    self.number(1),
                    &(variables.concat().len() as u32).to_le_bytes(),
                )?;
                Ok(OK)
            }
            "environ_get" => {
                let (mut place, mut at) = (self.number(0), self.number(1));
                for variable in self.host().environment.clone() {
                    self.write(place, &at.to_le_bytes())?;
                    self.write(at, variable.as_bytes())?;
                    (place, at) = (place + 4, at + variable.len() as u32);
                }
                Ok(OK)
            }
            "random_get" => self.random(),
            other => {
                Err(self.violation(&format!("calls {other}, which the filter has no use for")))
            }
        }
    }

    fn log(&mut self) -> Result<Status, Error> {
        let line = (self.number(0), text(&self.bytes(1)?));
        self.host().log.push(line);
        Ok(OK)
    }

    fn set_tick(&mut self) -> Result<Status, Error> {
        let (period, now) = (
            Duration::from_millis(self.number(0).into()),
            self.process().steady,
        );
        let host = self.host();
        // Envoy uses the timer of the effective context's plugin.
        let root = host
            .streams
            .get(&host.effective)
            .map_or(host.effective, |stream| stream.root);
        if let Some(root) = host.roots.get_mut(&root) {
            root.tick = (!period.is_zero()).then_some((period, now + period));
        }
        Ok(OK)
    }

    fn buffer(&mut self) -> Result<Status, Error> {
        let (buffer, start, most) = (
            self.number(0),
            self.number(1) as usize,
            self.number(2) as usize,
        );
        let host = self.host();
        let bytes = match buffer {
            CALL_RESPONSE_BODY => host.answer.as_ref().map(|answer| answer.body.clone()),
            PLUGIN_CONFIGURATION => host
                .roots
                .get(&host.effective)
                .map(|root| root.config.clone()),
            _ => None,
        };
        let Some(bytes) = bytes else {
            return Ok(NOT_FOUND);
        };
        let wanted: Vec<u8> = bytes.into_iter().skip(start).take(most).collect();
        self.give(3, &wanted)
    }

    fn header(&mut self) -> Result<Status, Error> {
        let name = self.bytes(1)?;
        let Some(map) = self.map(self.number(0)) else {
            return Ok(BAD_ARGUMENT);
        };
        match map
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.clone())
        {
            Some(value) => self.give(3, &value),
            None => Ok(NOT_FOUND),
        }
    }

    /// Removes a header, or replaces the first of its name with this value and removes the others.
    fn edit(&mut self, name: &[u8], value: Option<Vec<u8>>) -> Result<Status, Error> {
        let number = self.number(0);
        if let Some(fate @ (Fate::Continued | Fate::Answered(_))) =
            self.effective().map(|stream| stream.fate.clone())
            && number == REQUEST_HEADERS
        {
            return Err(self.violation(&format!("edits a request that is {fate:?}")));
        }
        let Some(map) = self.map(number) else {
            return Ok(BAD_ARGUMENT);
        };
        let place = map
            .iter()
            .position(|(found, _)| found == name)
            .unwrap_or(map.len());
        map.retain(|(found, _)| found != name);
        if let Some(value) = value {
            map.insert(place.min(map.len()), (name.to_vec(), value));
        }
        Ok(OK)
    }

    fn resume(&mut self) -> Result<Status, Error> {
        match self.effective().map(|stream| &mut stream.fate) {
            Some(fate @ Fate::Waiting) => {
                *fate = Fate::Continued;
                Ok(OK)
            }
            other => {
                let other = format!("{other:?}");
                Err(self.violation(&format!("resumes a request that is {other}")))
            }
        }
    }

    fn reply(&mut self) -> Result<Status, Error> {
        let reply = Reply {
            status: self.number(0),
            details: text(&self.bytes(1)?),
            body: self.bytes(3)?,
            headers: pairs(&self.bytes(5)?)
                .ok_or_else(|| self.violation("answers with a malformed header map"))?,
        };
        match self
            .effective()
            .map(|stream| (&mut stream.fate, stream.trailers.is_empty()))
        {
            Some((fate @ (Fate::Judged | Fate::Waiting), _))
            | Some((fate @ Fate::Continued, false)) => {
                *fate = Fate::Answered(reply);
                Ok(OK)
            }
            other => {
                let other = format!("{other:?}");
                Err(self.violation(&format!("answers a request that is {other}")))
            }
        }
    }

    fn note(&mut self) -> Result<Status, Error> {
        let (name, value) = (text(&self.bytes(0)?), self.bytes(2)?);
        match self.effective() {
            Some(stream) => {
                stream.notes.insert(name, value);
                Ok(OK)
            }
            None => Ok(INTERNAL_FAILURE),
        }
    }

    /// The only property that the filter reads: the last address of `x-forwarded-for`, or the
    /// peer's.
    fn property(&mut self) -> Result<Status, Error> {
        let path = self.bytes(0)?;
        if path != b"source\0address" {
            return Err(self.violation(&format!("reads the property {}", text(&path))));
        }
        let Some(stream) = self.effective() else {
            return Ok(NOT_FOUND);
        };
        let forwarded = stream.header("x-forwarded-for").join(",");
        let last = forwarded
            .rsplit(',')
            .next()
            .map(str::trim)
            .filter(|last| !last.is_empty());
        let address = last.map_or("127.0.0.1:40000".to_owned(), |last| format!("{last}:0"));
        self.give(2, address.as_bytes())
    }

    fn share(&mut self) -> Result<Status, Error> {
        let (key, value, version) = (self.bytes(0)?, self.bytes(2)?, self.number(4));
        Ok(self.process().share(key, value, version))
    }

    fn increment(&mut self) -> Result<Status, Error> {
        let (id, by) = (
            self.number(0) as usize,
            self.arguments[1].i64().expect("an i64"),
        );
        Ok(self.process().increment(id, by))
    }

    fn dispatch(&mut self) -> Result<Status, Error> {
        let (cluster, serialised) = (text(&self.bytes(0)?), self.bytes(2)?);
        let headers = pairs(&serialised)
            .ok_or_else(|| self.violation("calls with a malformed header map"))?;
        if [":method", ":path", ":authority"]
            .iter()
            .any(|name| headers.iter().all(|(key, _)| key != name.as_bytes()))
        {
            return Ok(BAD_ARGUMENT);
        }
        let (timeout, made) = (
            Duration::from_millis(self.number(8).into()),
            self.process().steady,
        );
        let host = self.host();
        let root = host.effective;
        if !host.roots.contains_key(&root) {
            return Err(
                self.violation("calls from a request's context, whose end would lose the answer")
            );
        }
        let call = Call {
            root,
            cluster,
            headers,
            timeout,
            made,
        };
        if let Some(status) = host.refused.get("proxy_http_call") {
            let status = *status;
            host.refused_calls.push(call);
            return Ok(status);
        }
        host.last_call += 1;
        let id = host.last_call;
        host.calls.insert(id, call);
        self.write(self.number(9), &id.to_le_bytes())?;
        Ok(OK)
    }

    /// Random bytes, the same in each run.
    fn random(&mut self) -> Result<Status, Error> {
        let mut bytes = vec![0; self.number(1) as usize];
        for byte in &mut bytes {
            let random = &mut self.host().random;
            *random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (*random >> 56) as u8;
        }
        self.write(self.number(0), &bytes)?;
        Ok(OK)
    }
}
