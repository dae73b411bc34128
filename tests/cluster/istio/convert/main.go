// convert FOLDER <EXTENSION: Istio's agent between the control plane and Envoy. It reads an extension configuration as JSON, downloads
// the module into FOLDER by the agent's own code, and prints the configuration that the agent sends to Envoy.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	istiolog "istio.io/istio/pkg/log"
	"istio.io/istio/pkg/wasm"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: convert FOLDER <EXTENSION")
	}
	options := istiolog.DefaultOptions()
	options.OutputPaths = []string{"stderr"}
	if err := istiolog.Configure(options); err != nil {
		return err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var extension core.TypedExtensionConfig
	if err := protojson.Unmarshal(text, &extension); err != nil {
		return err
	}
	resource, err := anypb.New(&extension)
	if err != nil {
		return err
	}
	resources := []*anypb.Any{resource}
	// The agent's own defaults.
	cache := wasm.NewLocalFileCache(os.Args[1], wasm.Options{
		HTTPRequestTimeout:    wasm.DefaultHTTPRequestTimeout,
		HTTPRequestMaxRetries: wasm.DefaultHTTPRequestMaxRetries,
	})
	if err := wasm.MaybeConvertWasmExtensionConfig(resources, cache); err != nil {
		return err
	}
	if err := resources[0].UnmarshalTo(&extension); err != nil {
		return err
	}
	text, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(&extension)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}
