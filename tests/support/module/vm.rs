//! A worker's VM: the compiled module in an interpreter, and the callbacks through which a test
//! drives it.

use super::abi::{CONTINUE, OK, PAUSE, Status};
use super::guest::Guest;
use super::host::{Host, Meter, Root};
use super::http::{Call, Fate, Headers, Response, Stream};
use super::process::Process;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;
use wasmi::{
    CompilationMode, Config, Engine, Instance, Linker, Memory, Module, Store, Val, WasmParams,
    WasmResults,
};

/// A limit on the instructions of one entry into the module.
const MOST_FUEL: u64 = 4_000_000_000;

/// A worker's VM.
pub struct Vm {
    store: Store<Host>,
    instance: Instance,
}

/// A snapshot of a VM, for any number of copies.
pub struct Image {
    memory: Vec<u8>,
    host: Host,
}

/// The compiled module and its imports.
struct Compiled {
    engine: Engine,
    module: Module,
    linker: Linker<Host>,
}

fn compiled() -> &'static Compiled {
    static COMPILED: OnceLock<Compiled> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let bytes = std::fs::read(crate::module()).expect("the module");
        // Not lazily: compilation would count as the first caller's instructions.
        let engine = Engine::new(
            Config::default()
                .consume_fuel(true)
                .compilation_mode(CompilationMode::Eager),
        );
        let module = Module::new(&engine, &bytes).expect("a module");
        let mut linker = Linker::new(&engine);
        for import in module.imports() {
            let name: &'static str = String::leak(import.name().to_owned());
            let of = import.ty().func().expect("an imported function").clone();
            let define = linker.func_new(
                import.module(),
                name,
                of,
                move |caller, arguments, results| {
                    let status = Guest {
                        caller,
                        name,
                        arguments,
                    }
                    .call()?;
                    if let [result] = results {
                        *result = Val::I32(status.cast_signed());
                    }
                    Ok(())
                },
            );
            define.expect("each import once");
        }
        Compiled {
            engine,
            module,
            linker,
        }
    })
}

impl Vm {
    /// A VM without plugins, with these environment variables.
    pub fn start(process: &Rc<RefCell<Process>>, environment: &[(&str, &str)]) -> Vm {
        let mut vm = Vm::instantiate(Host {
            process: Rc::clone(process),
            memory: None,
            allocate: None,
            environment: environment
                .iter()
                .map(|(name, value)| format!("{name}={value}\0"))
                .collect(),
            roots: BTreeMap::new(),
            streams: BTreeMap::new(),
            calls: BTreeMap::new(),
            answer: None,
            refused: BTreeMap::new(),
            refused_calls: Vec::new(),
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
        let instance = compiled
            .linker
            .instantiate_and_start(&mut store, &compiled.module)
            .expect("an instance");
        let memory = instance.get_memory(&store, "memory").expect("a memory");
        let allocate = instance
            .get_typed_func(&store, "proxy_on_memory_allocate")
            .expect("an allocator");
        let host = store.data_mut();
        (host.memory, host.allocate) = (Some(memory), Some(allocate));
        Vm { store, instance }
    }

    /// A snapshot of this VM.
    pub fn image(&self) -> Image {
        Image {
            memory: self.memory().data(&self.store).to_vec(),
            host: self.store.data().clone(),
        }
    }

    /// A VM from this snapshot, in a process with at least the snapshot's metrics.
    pub fn of_image(image: &Image, process: &Rc<RefCell<Process>>) -> Vm {
        let host = Host {
            process: Rc::clone(process),
            meter: Meter::default(),
            ..image.host.clone()
        };
        let mut vm = Vm::instantiate(host);
        let (memory, page) = (vm.memory(), 65536);
        let missing = image.memory.len().saturating_sub(vm.memory_size()) / page;
        memory.grow(&mut vm.store, missing as u64).expect("memory");
        memory
            .data_mut(&mut vm.store)
            .copy_from_slice(&image.memory);
        vm
    }

    /// Adds a plugin with this config, like Envoy does with a new config; `None` if the module
    /// rejects it.
    pub fn add_plugin(&mut self, config: &str) -> Option<u32> {
        let root = self.next_context();
        self.host().roots.insert(
            root,
            Root {
                config: config.as_bytes().to_vec(),
                tick: None,
            },
        );
        self.enter::<_, ()>("proxy_on_context_create", root, (root, 0));
        (self.enter::<_, u32>("proxy_on_vm_start", root, (root, 0)) != 0
            && self.configure(root, config))
        .then_some(root)
    }

    /// Configures a plugin, possibly again.
    fn configure(&mut self, root: u32, config: &str) -> bool {
        self.host().roots.get_mut(&root).expect("a plugin").config = config.as_bytes().to_vec();
        self.enter::<_, u32>("proxy_on_configure", root, (root, config.len() as u32)) != 0
    }

    /// Deletes a plugin without requests. Envoy cancels its calls.
    pub fn remove_plugin(&mut self, root: u32) {
        assert!(
            self.store
                .data()
                .streams
                .values()
                .all(|stream| stream.root != root),
            "a plugin without requests"
        );
        self.enter::<_, ()>("proxy_on_delete", root, root);
        self.host().roots.remove(&root);
        self.host().calls.retain(|_, call| call.root != root);
    }

    /// Sends a request's head. [`Vm::stream`] returns the outcome.
    pub fn request(&mut self, root: u32, headers: Headers) -> u32 {
        let (id, count) = (self.next_context(), headers.len() as u32);
        let (notes, trailers, fate) = (BTreeMap::new(), Vec::new(), Fate::Judged);
        self.host().streams.insert(
            id,
            Stream {
                root,
                headers,
                trailers,
                notes,
                fate,
            },
        );
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

    /// Sends the trailers of a continued request; returns whether they continue.
    pub fn trailers(&mut self, id: u32, trailers: Headers) -> bool {
        let count = trailers.len() as u32;
        let stream = self.stream_mut(id);
        assert_eq!(
            stream.fate,
            Fate::Continued,
            "Envoy keeps the trailers of a request that waits"
        );
        stream.trailers = trailers;
        self.enter::<_, i32>("proxy_on_request_trailers", id, (id, count)) == CONTINUE
    }

    /// Ends the request: it was answered, or its client hung up.
    pub fn end(&mut self, id: u32) -> Stream {
        self.enter::<_, ()>("proxy_on_delete", id, id);
        self.host().streams.remove(&id).expect("a request")
    }

    /// Answers a call; `None` is a reset.
    pub fn answer(&mut self, id: u32, answer: Option<Response>) {
        let call = self
            .host()
            .calls
            .remove(&id)
            .expect("a call without an answer");
        let count = answer
            .as_ref()
            .map_or(0, |answer| answer.headers.len() as u32);
        let size = answer.as_ref().map_or(0, |answer| answer.body.len() as u32);
        self.host().answer = answer;
        self.enter::<_, ()>(
            "proxy_on_http_call_response",
            call.root,
            (call.root, id, count, size, 0),
        );
        self.host().answer = None;
    }

    /// The next expiry of the plugin's timer, on the steady clock.
    pub fn next_tick(&self, root: u32) -> Option<Duration> {
        self.store.data().roots.get(&root)?.tick.map(|(_, at)| at)
    }

    /// Fires the plugin's timer.
    pub fn tick(&mut self, root: u32) {
        self.enter::<_, ()>("proxy_on_tick", root, root);
        let now = self.host().process.borrow().steady;
        if let Some((period, at)) = self
            .host()
            .roots
            .get_mut(&root)
            .and_then(|root| root.tick.as_mut())
        {
            *at = now + *period;
        }
    }

    /// Makes the host fail calls of this function with this status; [`OK`] ends that.
    pub fn refuse(&mut self, function: &str, status: Status) {
        match status {
            OK => self.host().refused.remove(function),
            _ => self.host().refused.insert(function.to_owned(), status),
        };
    }

    /// A request that has not ended.
    pub fn stream(&self, id: u32) -> &Stream {
        self.store.data().streams.get(&id).expect("a request")
    }

    fn stream_mut(&mut self, id: u32) -> &mut Stream {
        self.host().streams.get_mut(&id).expect("a request")
    }

    /// The requests that have not ended.
    pub fn streams(&self) -> &BTreeMap<u32, Stream> {
        &self.store.data().streams
    }

    /// The unanswered calls.
    pub fn calls(&self) -> &BTreeMap<u32, Call> {
        &self.store.data().calls
    }

    /// Takes the HTTP calls that the host refused since the last call.
    pub fn take_refused_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.host().refused_calls)
    }

    /// Takes the log lines and their levels since the last call.
    pub fn take_log(&mut self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.host().log)
    }

    /// Takes the module's activity since the last call.
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

    /// Calls an export. `context` is the context of its host calls.
    fn enter<P: WasmParams, R: WasmResults>(
        &mut self,
        export: &str,
        context: u32,
        arguments: P,
    ) -> R {
        let function = self
            .instance
            .get_typed_func::<P, R>(&self.store, export)
            .expect("an export");
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
            Err(error) => panic!(
                "the module failed in {export}: {error}\n{:#?}",
                self.host().log
            ),
        }
    }
}
