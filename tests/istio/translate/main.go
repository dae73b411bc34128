// Command translate reads Istio's resources as YAML and writes them again, each WasmPlugin as the TrafficExtension that Istio's own
// controller makes of it. In a cluster istiod runs that controller itself; with configuration from files it does not.
// Nothing is translated here: a document that Istio does not know is an error.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/pkg/config/kube/extensions"
	"istio.io/istio/pilot/pkg/config/memory"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/gvk"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	configs, unknown, err := crd.ParseInputs(string(text))
	if err != nil {
		return err
	}
	if len(unknown) > 0 {
		return fmt.Errorf("istio knows no %s %s", unknown[0].APIVersion, unknown[0].Kind)
	}
	store := memory.NewController(memory.MakeSkipValidation(collections.Pilot))
	var others []config.Config
	plugins := 0
	for _, config := range configs {
		if config.GroupVersionKind != gvk.WasmPlugin {
			others = append(others, config)
			continue
		}
		if _, err := store.Create(config); err != nil {
			return err
		}
		plugins++
	}
	translated, err := translate(store, plugins)
	if err != nil {
		return err
	}
	for _, config := range append(others, translated...) {
		object, err := crd.ConvertConfig(config)
		if err != nil {
			return err
		}
		document, err := yaml.Marshal(object)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "---\n%s", document)
	}
	return nil
}

// translate has Istio's controller read the store, and waits until it made so many TrafficExtensions.
func translate(store *memory.Controller, plugins int) ([]config.Config, error) {
	stop := make(chan struct{})
	defer close(stop)
	controller := extensions.NewController(store, nil, nil)
	go store.Run(stop)
	go controller.Run(stop)
	for range 100 {
		if controller.HasSynced() {
			if made := controller.List(gvk.TrafficExtension, ""); len(made) == plugins {
				for at := range made {
					// What marks a translated one is no name that a file may hold.
					made[at].Name, _, _ = strings.Cut(made[at].Name, "~")
				}
				return made, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("istio's controller did not translate %d WasmPlugins in time", plugins)
}
