//! A mortal copy of the module: the bytes under test, with a guard before two callbacks that kills
//! the VM on a signal. The signal is a head of [`DEADLY_HEADERS`] fields, or a key answer of a
//! certain size. Nothing else is changed.

use std::collections::HashMap;
use std::path::Path;
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, InstructionSink,
    Module,
};
use wasmparser::{Payload, TypeRef};

/// A request with at least this many headers kills the VM.
pub const DEADLY_HEADERS: i32 = 60;

/// How a VM dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// By the instruction at the end of a Rust panic.
    Panic,
    /// By infinite recursion.
    Stack,
    /// By allocating all memory, and then aborting like an allocator.
    Memory,
}

impl Death {
    pub const ALL: [Death; 3] = [Death::Panic, Death::Stack, Death::Memory];

    /// The size of the deadly key answer. No PEM key has it.
    pub fn answer_size(self) -> i32 {
        match self {
            Death::Panic => 2001,
            Death::Stack => 2002,
            Death::Memory => 2003,
        }
    }

    fn write(self, code: &mut InstructionSink<'_>, own: u32, parameters: u32) {
        match self {
            Death::Panic => {}
            Death::Stack => {
                for parameter in 0..parameters {
                    code.local_get(parameter);
                }
                code.call(own);
            }
            Death::Memory => {
                // 16 MiB at a time, until allocation fails.
                code.loop_(BlockType::Empty)
                    .i32_const(256)
                    .memory_grow(0)
                    .i32_const(-1)
                    .i32_ne()
                    .br_if(0)
                    .end();
            }
        }
        code.unreachable();
    }
}

/// Writes the mortal copy of `module` to `file`.
pub fn write(module: &Path, file: &Path) {
    let original = std::fs::read(module).expect("the module");
    let mut copy = Module::new();
    let mut guards = Guards::of(&original);
    guards
        .parse_core_module(&mut copy, wasmparser::Parser::new(0), &original)
        .expect("a module");
    std::fs::write(file, copy.finish()).expect("the mortal module");
}

/// A guarded callback: its name and number of parameters.
const GUARDED: [(&str, u32); 2] = [
    ("proxy_on_request_headers", 3),
    ("proxy_on_http_call_response", 5),
];

struct Guards {
    /// The guarded callbacks by name: the original function and its type.
    callbacks: HashMap<&'static str, (u32, u32)>,
    /// The number of functions in the original.
    functions: u32,
}

impl Guards {
    fn of(module: &[u8]) -> Guards {
        let (mut types, mut callbacks) = (Vec::new(), HashMap::new());
        for payload in wasmparser::Parser::new(0).parse_all(module) {
            match payload.expect("a module") {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        if let TypeRef::Func(of) = import.expect("an import").ty {
                            types.push(of);
                        }
                    }
                }
                Payload::FunctionSection(functions) => {
                    types.extend(
                        functions
                            .into_iter()
                            .map(|of| of.expect("a function's type")),
                    );
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export.expect("an export");
                        if let Some((name, _)) =
                            GUARDED.iter().find(|(name, _)| *name == export.name)
                        {
                            callbacks.insert(*name, (export.index, types[export.index as usize]));
                        }
                    }
                }
                _ => {}
            }
        }
        assert_eq!(callbacks.len(), GUARDED.len(), "a callback is not exported");
        Guards {
            callbacks,
            functions: u32::try_from(types.len()).expect("a module"),
        }
    }

    /// The guard of `name`, placed behind all functions of the original.
    fn guard(&self, name: &str) -> Option<u32> {
        let place = GUARDED.iter().position(|(guarded, _)| *guarded == name)?;
        Some(self.functions + u32::try_from(place).expect("two of them"))
    }
}

impl Reencode for Guards {
    type Error = std::convert::Infallible;

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_function_section(self, functions, section)?;
        for (name, _) in GUARDED {
            functions.function(self.callbacks[name].1);
        }
        Ok(())
    }

    fn parse_export(
        &mut self,
        exports: &mut ExportSection,
        export: wasmparser::Export<'_>,
    ) -> Result<(), reencode::Error> {
        match self.guard(export.name) {
            Some(guard) => {
                exports.export(export.name, ExportKind::Func, guard);
                Ok(())
            }
            None => reencode::utils::parse_export(self, exports, export),
        }
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_code_section(self, code, section)?;
        for (name, parameters) in GUARDED {
            let own = self.guard(name).expect("a guarded callback");
            let mut guard = Function::new([]);
            let mut body = guard.instructions();
            if name == "proxy_on_request_headers" {
                body.local_get(1)
                    .i32_const(DEADLY_HEADERS)
                    .i32_ge_s()
                    .if_(BlockType::Empty);
                Death::Panic.write(&mut body, own, parameters);
                body.end();
            } else {
                for death in Death::ALL {
                    body.local_get(3)
                        .i32_const(death.answer_size())
                        .i32_eq()
                        .if_(BlockType::Empty);
                    death.write(&mut body, own, parameters);
                    body.end();
                }
            }
            for parameter in 0..parameters {
                body.local_get(parameter);
            }
            body.call(self.callbacks[name].0).end();
            code.function(&guard);
        }
        Ok(())
    }
}
