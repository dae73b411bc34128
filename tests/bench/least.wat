;; A proxy-wasm module that makes the three host calls without which no module can name a user: it reads the request's headers, removes
;; the token and sets the user id. It verifies nothing: what is left for this filter to be measured against.
(module
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 1024) "x-amzn-oidc-datakubeflow-useridann@example.com")
  (func (export "_initialize"))
  (func (export "proxy_abi_version_0_2_1"))
  ;; Each request's headers go to the same place.
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_delete") (param i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $pairs (i32.const 0) (i32.const 8) (i32.const 12)))
    (drop (call $remove (i32.const 0) (i32.const 1024) (i32.const 16)))
    (drop (call $replace (i32.const 0) (i32.const 1040) (i32.const 15) (i32.const 1055) (i32.const 15)))
    (i32.const 0)))
