//! A host for the compiled module that is no Envoy: an interpreter with clocks, header maps, HTTP calls, shared data and metrics
//! in the test's hands. What the module does in it is the same each time, down to the count of instructions. It does as Envoy
//! does, and fails the test at once where the module traps, breaks the ABI, or answers a request twice.
//!
//! A [`Process`] is what the VMs of one proxy share; a [`Vm`] is what one worker has. Nothing happens but what the test asks for:
//! no tick, no answer to a call, no passing of time.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;
use wasmi::{
    Caller, CompilationMode, Config, Engine, Error, Instance, Linker, Memory, Module, Store, TypedFunc, Val,
    WasmParams, WasmResults,
};

/// More instructions than any one entry into the module may take.
const MOST_FUEL: u64 = 4_000_000_000;

/// A host call's status, as the ABI numbers them.
pub type Status = u32;
pub const OK: Status = 0;
pub const NOT_FOUND: Status = 1;
pub const BAD_ARGUMENT: Status = 2;
pub const CAS_MISMATCH: Status = 8;
pub const INTERNAL_FAILURE: Status = 10;

const CONTINUE: i32 = 0;
const PAUSE: i32 = 1;
const GAUGE: u32 = 1;
const REQUEST_HEADERS: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const CALL_RESPONSE_BODY: u32 = 4;
const CALL_RESPONSE_HEADERS: u32 = 6;
const PLUGIN_CONFIGURATION: u32 = 7;

/// Names and values in order; a name may come twice.
pub type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// What all workers of one proxy share.
#[derive(Clone, Default)]
pub struct Process {
    /// The wall clock, since the Unix epoch. It may be set at will.
    pub wall: Duration,
    /// The steady clock, since its own beginning. It may only go forward.
    pub steady: Duration,
    /// Each value and its version.
    pub shared_data: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    /// How long the host takes to verify a signature.
    pub verification: Duration,
    /// So many times, another worker has written a shared value just before a worker does.
    pub lost_races: u32,
    last_version: u32,
    metrics: Vec<Metric>,
}

#[derive(Clone)]
struct Metric {
    name: String,
    kind: u32,
    value: i64,
}

impl Process {
    /// A proxy at this time.
    pub fn at(wall: Duration, steady: Duration) -> Rc<RefCell<Process>> {
        Rc::new(RefCell::new(Process { wall, steady, ..Process::default() }))
    }

    /// The value of a counter or gauge; `None` where no module has defined it.
    pub fn metric(&self, name: &str) -> Option<i64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    /// Every metric that is not zero.
    pub fn metrics(&self) -> BTreeMap<&str, i64> {
        let moved = self.metrics.iter().filter(|metric| metric.value != 0);
        moved.map(|metric| (metric.name.as_str(), metric.value)).collect()
    }

    fn define(&mut self, name: String, kind: u32) -> usize {
        let known = self.metrics.iter().position(|metric| metric.name == name);
        known.unwrap_or_else(|| {
            self.metrics.push(Metric { name, kind, value: 0 });
            self.metrics.len() - 1
        })
    }
}

/// What the module did, since [`Vm::take_meter`].
#[derive(Clone, Default, Debug)]
pub struct Meter {
    /// Instructions, as the interpreter counts them.
    pub fuel: u64,
    /// Entries into the module, allocations apart.
    pub entries: u64,
    /// Host calls by name.
    pub calls: BTreeMap<&'static str, u64>,
    /// Bytes that the host wrote into the module's memory.
    pub bytes_in: u64,
    /// Bytes that the host read from there.
    pub bytes_out: u64,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Whose plugin judges it.
    pub root: u32,
    /// As they stand now: upstream sees them once the request has been let pass.
    pub headers: Headers,
    pub trailers: Headers,
    /// Filter state, by name without `wasm.`.
    pub notes: BTreeMap<String, Vec<u8>>,
    pub fate: Fate,
}

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The module is looking at its head.
    Judged,
    /// It is paused.
    Waiting,
    /// It went on to upstream.
    Continued,
    /// The module answered it.
    Answered(Reply),
}

/// An answer in upstream's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub details: String,
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Stream {
    /// All values of one header, in order.
    pub fn header(&self, name: &str) -> Vec<String> {
        self.headers.iter().filter(|(key, _)| key == name.as_bytes()).map(|(_, value)| text(value)).collect()
    }

    /// Why it was answered, as the module noted it for the access log.
    pub fn reason(&self) -> Option<String> {
        self.notes.get("alb_oidc_reason").map(|reason| text(reason))
    }
}

/// An HTTP call that the module made and nobody has answered.
#[derive(Clone, Debug)]
pub struct Call {
    /// The root context that made it.
    pub root: u32,
    pub cluster: String,
    pub headers: Headers,
    pub timeout: Duration,
    /// When it was made, by the steady clock.
    pub made: Duration,
}

impl Call {
    /// The value of one header.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(key, _)| key == name.as_bytes());
        found.map(|(_, value)| text(value)).unwrap_or_default()
    }
}

/// What a call is answered with; `None` in its place is a reset.
#[derive(Clone, Debug)]
pub struct Response {
    pub headers: Headers,
    pub body: Vec<u8>,
}

impl Response {
    /// An answer of this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response { headers: headers(&[(":status", &status.to_string())]), body: body.into() }
    }

    /// What Envoy makes of a call that took too long.
    pub fn timeout() -> Response {
        Response::new(504, "upstream request timeout")
    }
}

/// Header names and values as text.
pub fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One plugin config in one VM.
#[derive(Clone)]
struct Root {
    config: Vec<u8>,
    /// The timer's period and when it rings next, by the steady clock.
    tick: Option<(Duration, Duration)>,
}

/// The host's side of a VM.
#[derive(Clone)]
struct Host {
    process: Rc<RefCell<Process>>,
    memory: Option<Memory>,
    allocate: Option<TypedFunc<u32, u32>>,
    environment: Vec<String>,
    roots: BTreeMap<u32, Root>,
    streams: BTreeMap<u32, Stream>,
    calls: BTreeMap<u32, Call>,
    /// The answer that the module is being told of.
    answer: Option<Response>,
    /// Statuses with which calls are refused, by the function's name.
    refused: BTreeMap<String, Status>,
    effective: u32,
    last_context: u32,
    last_call: u32,
    random: u64,
    meter: Meter,
    log: Vec<(u32, String)>,
}

/// A worker's VM.
pub struct Vm {
    store: Store<Host>,
    instance: Instance,
}

/// A VM that can be had again, as often as wanted.
pub struct Image {
    memory: Vec<u8>,
    host: Host,
}

/// The compiled module and everything that it imports.
struct Compiled {
    engine: Engine,
    module: Module,
    linker: Linker<Host>,
}

fn compiled() -> &'static Compiled {
    static COMPILED: OnceLock<Compiled> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let bytes = std::fs::read(super::module()).expect("the module");
        // Not lazily: that would count as the first caller's instructions.
        let engine = Engine::new(Config::default().consume_fuel(true).compilation_mode(CompilationMode::Eager));
        let module = Module::new(&engine, &bytes).expect("a module");
        let mut linker = Linker::new(&engine);
        for import in module.imports() {
            let name: &'static str = String::leak(import.name().to_owned());
            let of = import.ty().func().expect("an imported function").clone();
            let define = linker.func_new(import.module(), name, of, move |caller, arguments, results| {
                let status = Guest { caller, name, arguments }.call()?;
                if let [result] = results {
                    *result = Val::I32(status.cast_signed());
                }
                Ok(())
            });
            define.expect("each import once");
        }
        Compiled { engine, module, linker }
    })
}

impl Vm {
    /// A VM with no plugin, and these environment variables.
    pub fn start(process: &Rc<RefCell<Process>>, environment: &[(&str, &str)]) -> Vm {
        let mut vm = Vm::instantiate(Host {
            process: Rc::clone(process),
            memory: None,
            allocate: None,
            environment: environment.iter().map(|(name, value)| format!("{name}={value}\0")).collect(),
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            calls: BTreeMap::new(),
            answer: None,
            refused: BTreeMap::new(),
            effective: 0,
            last_context: 0,
            last_call: 0,
            random: 1,
            meter: Meter::default(),
            log: Vec::new(),
        });
        vm.enter::<_, ()>("_initialize", 0, ());
        vm
    }

    fn instantiate(host: Host) -> Vm {
        let compiled = compiled();
        let mut store = Store::new(&compiled.engine, host);
        store.set_fuel(MOST_FUEL).expect("fuel is metered");
        let instance = compiled.linker.instantiate_and_start(&mut store, &compiled.module).expect("an instance");
        let memory = instance.get_memory(&store, "memory").expect("a memory");
        let allocate = instance.get_typed_func(&store, "proxy_on_memory_allocate").expect("an allocator");
        let host = store.data_mut();
        (host.memory, host.allocate) = (Some(memory), Some(allocate));
        Vm { store, instance }
    }

    /// This VM as it is now.
    pub fn image(&self) -> Image {
        Image { memory: self.memory().data(&self.store).to_vec(), host: self.store.data().clone() }
    }

    /// A VM as it was when the image was taken, in a process that has at least the metrics of the image's.
    pub fn of_image(image: &Image, process: &Rc<RefCell<Process>>) -> Vm {
        let host = Host { process: Rc::clone(process), meter: Meter::default(), ..image.host.clone() };
        let mut vm = Vm::instantiate(host);
        let (memory, page) = (vm.memory(), 65536);
        let missing = image.memory.len().saturating_sub(vm.memory_size()) / page;
        memory.grow(&mut vm.store, missing as u64).expect("memory");
        memory.data_mut(&mut vm.store).copy_from_slice(&image.memory);
        vm
    }

    /// Adds a plugin of this config; `None` where the module refuses it. As Envoy does with a config that it has not seen.
    pub fn add_plugin(&mut self, config: &str) -> Option<u32> {
        let root = self.next_context();
        self.host().roots.insert(root, Root { config: config.as_bytes().to_vec(), tick: None });
        self.enter::<_, ()>("proxy_on_context_create", root, (root, 0));
        (self.enter::<_, u32>("proxy_on_vm_start", root, (root, 0)) != 0 && self.configure(root, config))
            .then_some(root)
    }

    /// Configures a plugin, once more perhaps.
    pub fn configure(&mut self, root: u32, config: &str) -> bool {
        self.host().roots.get_mut(&root).expect("a plugin").config = config.as_bytes().to_vec();
        self.enter::<_, u32>("proxy_on_configure", root, (root, config.len() as u32)) != 0
    }

    /// Ends a plugin, whose requests are over. Envoy cancels its calls.
    pub fn remove_plugin(&mut self, root: u32) {
        assert!(self.store.data().streams.values().all(|stream| stream.root != root), "a plugin without requests");
        self.enter::<_, ()>("proxy_on_delete", root, root);
        self.host().roots.remove(&root);
        self.host().calls.retain(|_, call| call.root != root);
    }

    /// A request's head comes. What becomes of it, [`Vm::stream`] says.
    pub fn request(&mut self, root: u32, headers: Headers) -> u32 {
        let (id, count) = (self.next_context(), headers.len() as u32);
        let (notes, trailers, fate) = (BTreeMap::new(), Vec::new(), Fate::Judged);
        self.host().streams.insert(id, Stream { root, headers, trailers, notes, fate });
        self.enter::<_, ()>("proxy_on_context_create", id, (id, root));
        let action: i32 = self.enter("proxy_on_request_headers", id, (id, count, 1));
        let fate = &mut self.stream_mut(id).fate;
        *fate = match (action, std::mem::replace(fate, Fate::Judged)) {
            (CONTINUE, Fate::Judged) => Fate::Continued,
            (PAUSE, Fate::Judged) => Fate::Waiting,
            (PAUSE, answered @ Fate::Answered(_)) => answered,
            (action, fate) => panic!("the module returned {action} for a request that is {fate:?}"),
        };
        id
    }

    /// The trailers of a request that was let pass come; whether they go on.
    pub fn trailers(&mut self, id: u32, trailers: Headers) -> bool {
        let count = trailers.len() as u32;
        let stream = self.stream_mut(id);
        assert_eq!(stream.fate, Fate::Continued, "Envoy keeps the trailers of a request that waits");
        stream.trailers = trailers;
        self.enter::<_, i32>("proxy_on_request_trailers", id, (id, count)) == CONTINUE
    }

    /// The request is over: it has been answered, or its client has hung up.
    pub fn end(&mut self, id: u32) -> Stream {
        self.enter::<_, ()>("proxy_on_delete", id, id);
        self.host().streams.remove(&id).expect("a request")
    }

    /// Answers a call; `None` is a reset.
    pub fn answer(&mut self, id: u32, answer: Option<Response>) {
        let call = self.host().calls.remove(&id).expect("a call without an answer");
        let count = answer.as_ref().map_or(0, |answer| answer.headers.len() as u32);
        let size = answer.as_ref().map_or(0, |answer| answer.body.len() as u32);
        self.host().answer = answer;
        self.enter::<_, ()>("proxy_on_http_call_response", call.root, (call.root, id, count, size, 0));
        self.host().answer = None;
    }

    /// When the plugin's timer rings next, by the steady clock.
    pub fn next_tick(&self, root: u32) -> Option<Duration> {
        self.store.data().roots.get(&root)?.tick.map(|(_, at)| at)
    }

    /// The plugin's timer rings.
    pub fn tick(&mut self, root: u32) {
        self.enter::<_, ()>("proxy_on_tick", root, root);
        let now = self.host().process.borrow().steady;
        if let Some((period, at)) = self.host().roots.get_mut(&root).and_then(|root| root.tick.as_mut()) {
            *at = now + *period;
        }
    }

    /// Has the host refuse calls of this function with this status; [`OK`]: not any more.
    pub fn refuse(&mut self, function: &str, status: Status) {
        match status {
            OK => self.host().refused.remove(function),
            _ => self.host().refused.insert(function.to_owned(), status),
        };
    }

    /// A request that is not over.
    pub fn stream(&self, id: u32) -> &Stream {
        self.store.data().streams.get(&id).expect("a request")
    }

    fn stream_mut(&mut self, id: u32) -> &mut Stream {
        self.host().streams.get_mut(&id).expect("a request")
    }

    /// The requests that are not over.
    pub fn streams(&self) -> &BTreeMap<u32, Stream> {
        &self.store.data().streams
    }

    /// The calls that are not answered.
    pub fn calls(&self) -> &BTreeMap<u32, Call> {
        &self.store.data().calls
    }

    /// The log's lines and their levels, since they were taken last.
    pub fn take_log(&mut self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.host().log)
    }

    /// What the module did since this was asked last.
    pub fn take_meter(&mut self) -> Meter {
        std::mem::take(&mut self.host().meter)
    }

    /// The size of the module's memory, in bytes. It never shrinks.
    pub fn memory_size(&self) -> usize {
        self.memory().data_size(&self.store)
    }

    fn memory(&self) -> Memory {
        self.store.data().memory.expect("a memory")
    }

    fn host(&mut self) -> &mut Host {
        self.store.data_mut()
    }

    fn next_context(&mut self) -> u32 {
        let host = self.host();
        host.last_context += 1;
        host.last_context
    }

    /// Calls an export. `context` is the one that host calls are about.
    fn enter<P: WasmParams, R: WasmResults>(&mut self, export: &str, context: u32, arguments: P) -> R {
        let function = self.instance.get_typed_func::<P, R>(&self.store, export).expect("an export");
        self.store.set_fuel(MOST_FUEL).expect("fuel is metered");
        self.host().effective = context;
        match function.call(&mut self.store, arguments) {
            Ok(result) => {
                let left = self.store.get_fuel().expect("fuel is metered");
                let meter = &mut self.host().meter;
                meter.fuel += MOST_FUEL - left;
                meter.entries += 1;
                result
            }
            Err(error) => panic!("the module failed in {export}: {error}\n{:#?}", self.host().log),
        }
    }
}

/// A host call that is being made.
struct Guest<'a, 'b> {
    caller: Caller<'a, Host>,
    name: &'static str,
    arguments: &'b [Val],
}

impl Guest<'_, '_> {
    fn call(&mut self) -> Result<Status, Error> {
        let name = self.name;
        *self.host().meter.calls.entry(name).or_default() += 1;
        if let Some(status) = self.host().refused.get(name) {
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
                let time = if monotonic { self.process().steady } else { self.process().wall };
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
                let Some((value, version)) = self.process().shared_data.get(&key).cloned() else {
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
                self.write(self.number(1), &(variables.concat().len() as u32).to_le_bytes())?;
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
            other => Err(self.violation(&format!("calls {other}, which the filter has no use for"))),
        }
    }

    fn host(&mut self) -> &mut Host {
        self.caller.data_mut()
    }

    fn process(&self) -> std::cell::RefMut<'_, Process> {
        self.caller.data().process.borrow_mut()
    }

    fn violation(&self, what: &str) -> Error {
        Error::new(format!("the module {what}, in context {}", self.caller.data().effective))
    }

    fn number(&self, place: usize) -> u32 {
        self.arguments[place].i32().expect("an i32").cast_unsigned()
    }

    fn memory(&self) -> Memory {
        self.caller.data().memory.expect("a memory")
    }

    /// The bytes that this argument and the next, their number, name.
    fn bytes(&mut self, place: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.number(place + 1) as usize];
        let read = self.memory().read(&self.caller, self.number(place) as usize, &mut bytes);
        read.map_err(|_| self.violation(&format!("gives {} an address outside its memory", self.name)))?;
        self.host().meter.bytes_out += bytes.len() as u64;
        Ok(bytes)
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Error> {
        let memory = self.memory();
        let written = memory.write(&mut self.caller, at as usize, bytes);
        written.map_err(|_| self.violation(&format!("gives {} an address outside its memory", self.name)))?;
        self.host().meter.bytes_in += bytes.len() as u64;
        Ok(())
    }

    fn write_time(&mut self, place: usize, time: Duration) -> Result<Status, Error> {
        let nanoseconds = u64::try_from(time.as_nanos()).expect("a time in this era");
        self.write(self.number(place), &nanoseconds.to_le_bytes())?;
        Ok(OK)
    }

    /// Puts bytes into memory that the module allocates, and their place into what this argument and the next point to.
    fn give(&mut self, place: usize, bytes: &[u8]) -> Result<Status, Error> {
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

    fn effective(&mut self) -> Option<&mut Stream> {
        let host = self.host();
        host.streams.get_mut(&host.effective)
    }

    fn map(&mut self, map: u32) -> Option<&mut Headers> {
        match map {
            REQUEST_HEADERS => self.effective().map(|stream| &mut stream.headers),
            REQUEST_TRAILERS => self.effective().map(|stream| &mut stream.trailers),
            CALL_RESPONSE_HEADERS => self.host().answer.as_mut().map(|answer| &mut answer.headers),
            _ => None,
        }
    }

    fn log(&mut self) -> Result<Status, Error> {
        let line = (self.number(0), text(&self.bytes(1)?));
        self.host().log.push(line);
        Ok(OK)
    }

    fn set_tick(&mut self) -> Result<Status, Error> {
        let (period, now) = (Duration::from_millis(self.number(0).into()), self.process().steady);
        let host = self.host();
        // Envoy takes the timer of the effective context's plugin.
        let root = host.streams.get(&host.effective).map_or(host.effective, |stream| stream.root);
        if let Some(root) = host.roots.get_mut(&root) {
            root.tick = (!period.is_zero()).then_some((period, now + period));
        }
        Ok(OK)
    }

    fn buffer(&mut self) -> Result<Status, Error> {
        let (buffer, start, most) = (self.number(0), self.number(1) as usize, self.number(2) as usize);
        let host = self.host();
        let bytes = match buffer {
            CALL_RESPONSE_BODY => host.answer.as_ref().map(|answer| answer.body.clone()),
            PLUGIN_CONFIGURATION => host.roots.get(&host.effective).map(|root| root.config.clone()),
            _ => None,
        };
        let Some(bytes) = bytes else { return Ok(NOT_FOUND) };
        let wanted: Vec<u8> = bytes.into_iter().skip(start).take(most).collect();
        self.give(3, &wanted)
    }

    fn header(&mut self) -> Result<Status, Error> {
        let name = self.bytes(1)?;
        let Some(map) = self.map(self.number(0)) else { return Ok(BAD_ARGUMENT) };
        match map.iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone()) {
            Some(value) => self.give(3, &value),
            None => Ok(NOT_FOUND),
        }
    }

    /// Removes a header, or puts a value in place of the first of its name and removes the others.
    fn edit(&mut self, name: &[u8], value: Option<Vec<u8>>) -> Result<Status, Error> {
        let number = self.number(0);
        if let Some(fate @ (Fate::Continued | Fate::Answered(_))) = self.effective().map(|stream| stream.fate.clone())
            && number == REQUEST_HEADERS
        {
            return Err(self.violation(&format!("edits a request that is {fate:?}")));
        }
        let Some(map) = self.map(number) else { return Ok(BAD_ARGUMENT) };
        let place = map.iter().position(|(found, _)| found == name).unwrap_or(map.len());
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
            headers: pairs(&self.bytes(5)?).ok_or_else(|| self.violation("answers with a malformed header map"))?,
        };
        match self.effective().map(|stream| (&mut stream.fate, stream.trailers.is_empty())) {
            Some((fate @ (Fate::Judged | Fate::Waiting), _)) | Some((fate @ Fate::Continued, false)) => {
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

    /// The one property that the filter reads: the last address of `x-forwarded-for`, else the peer's.
    fn property(&mut self) -> Result<Status, Error> {
        let path = self.bytes(0)?;
        if path != b"source\0address" {
            return Err(self.violation(&format!("reads the property {}", text(&path))));
        }
        let Some(stream) = self.effective() else { return Ok(NOT_FOUND) };
        let forwarded = stream.header("x-forwarded-for").join(",");
        let last = forwarded.rsplit(',').next().map(str::trim).filter(|last| !last.is_empty());
        let address = last.map_or("127.0.0.1:40000".to_owned(), |last| format!("{last}:0"));
        self.give(2, address.as_bytes())
    }

    fn share(&mut self) -> Result<Status, Error> {
        let (key, value, version) = (self.bytes(0)?, self.bytes(2)?, self.number(4));
        let mut process = self.process();
        let process = &mut *process;
        process.last_version += 1;
        if process.lost_races > 0 {
            process.lost_races -= 1;
            let entry = process.shared_data.entry(key.clone()).or_default();
            entry.1 = process.last_version;
            process.last_version += 1;
        }
        let entry = process.shared_data.entry(key).or_default();
        if version != 0 && version != entry.1 {
            return Ok(CAS_MISMATCH);
        }
        *entry = (value, process.last_version);
        Ok(OK)
    }

    fn increment(&mut self) -> Result<Status, Error> {
        let by = self.arguments[1].i64().expect("an i64");
        let id = self.number(0) as usize;
        match self.process().metrics.get_mut(id) {
            Some(metric) if by > 0 || metric.kind == GAUGE => {
                metric.value += by;
                Ok(OK)
            }
            _ => Ok(BAD_ARGUMENT),
        }
    }

    fn dispatch(&mut self) -> Result<Status, Error> {
        let (cluster, serialised) = (text(&self.bytes(0)?), self.bytes(2)?);
        let headers = pairs(&serialised).ok_or_else(|| self.violation("calls with a malformed header map"))?;
        if [":method", ":path", ":authority"].iter().any(|name| headers.iter().all(|(key, _)| key != name.as_bytes())) {
            return Ok(BAD_ARGUMENT);
        }
        let (timeout, made) = (Duration::from_millis(self.number(8).into()), self.process().steady);
        let host = self.host();
        let root = host.effective;
        if !host.roots.contains_key(&root) {
            return Err(self.violation("calls from a request's context, whose end would lose the answer"));
        }
        host.last_call += 1;
        let id = host.last_call;
        host.calls.insert(id, Call { root, cluster, headers, timeout, made });
        self.write(self.number(9), &id.to_le_bytes())?;
        Ok(OK)
    }

    /// Random bytes that are the same each time.
    fn random(&mut self) -> Result<Status, Error> {
        let mut bytes = vec![0; self.number(1) as usize];
        for byte in &mut bytes {
            let random = &mut self.host().random;
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (*random >> 56) as u8;
        }
        self.write(self.number(0), &bytes)?;
        Ok(OK)
    }
}

/// Reads the ABI's header map: a count, the sizes of each name and value, then both with a NUL byte behind.
fn pairs(serialised: &[u8]) -> Option<Headers> {
    if serialised.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = serialised.split_first_chunk::<4>()?;
    let (sizes, mut texts) = rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(8)?)?;
    let mut taken = sizes.as_chunks::<4>().0.iter().map(|size| {
        let (text, after) = texts.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        texts = after.strip_prefix(b"\0")?;
        Some(text.to_vec())
    });
    let mut pairs = Vec::new();
    while let Some(name) = taken.next() {
        pairs.push((name?, taken.next()??));
    }
    drop(taken);
    texts.is_empty().then_some(pairs)
}

fn serialised(map: &Headers) -> Vec<u8> {
    let size = |bytes: &Vec<u8>| (bytes.len() as u32).to_le_bytes();
    let mut bytes = (map.len() as u32).to_le_bytes().to_vec();
    bytes.extend(map.iter().flat_map(|(name, value)| [size(name), size(value)].concat()));
    bytes.extend(map.iter().flat_map(|(name, value)| [name, &b"\0"[..], value, b"\0"].concat()));
    bytes
}

/// Envoy's foreign function: a protobuf message in, a protobuf message out.
fn verify_signature(arguments: &[u8]) -> Vec<u8> {
    const P256_SPKI_LENGTH: usize = 91;
    let mut fields = BTreeMap::new();
    let mut rest = arguments;
    while let [tag, after @ ..] = rest {
        let (mut length, mut shift, mut after) = (0, 0, after);
        while let [byte, behind @ ..] = after {
            length |= usize::from(byte & 0x7f) << shift;
            (shift, after) = (shift + 7, behind);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (field, behind) = after.split_at(length);
        fields.insert(tag >> 3, field);
        rest = behind;
    }
    let field = |number: u8| fields.get(&number).copied().unwrap_or_default();
    let (spki, signature, text) = (field(2), field(3), field(4));
    let algorithm: &dyn VerificationAlgorithm =
        if spki.len() == P256_SPKI_LENGTH { &ECDSA_P256_SHA256_ASN1 } else { &RSA_PKCS1_2048_8192_SHA256 };
    let is_valid = field(1) == b"sha256" && UnparsedPublicKey::new(algorithm, spki).verify(text, signature).is_ok();
    if is_valid { vec![0x08, 0x01] } else { [&b"\x12\x1c"[..], b"Failed to verify signature. "].concat() }
}
