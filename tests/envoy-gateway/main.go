// alb-oidc-translate SHA256 <MANIFESTS: prints what Envoy Gateway sends an Envoy for these manifests, as JSON: the bootstrap, the
// xDS resources by type, and the status of each policy. Reaches no network.
//
// The steps are those of `egctl x translate` (internal/cmd/egctl/translate.go) with what the controller has and egctl has not:
// the Wasm cache and the labels of namespaces.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	gwapiv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	"github.com/envoyproxy/gateway/internal/gatewayapi"
	"github.com/envoyproxy/gateway/internal/gatewayapi/resource"
	"github.com/envoyproxy/gateway/internal/logging"
	"github.com/envoyproxy/gateway/internal/wasm"
	"github.com/envoyproxy/gateway/internal/xds/bootstrap"
	"github.com/envoyproxy/gateway/internal/xds/translator"
)

// Where Envoy Gateway is installed.
const namespace = "envoy-gateway-system"

// Stands for the controller's cache, which downloads a module and serves it to Envoy.
type wasmCache struct{ checksum string }

func (c wasmCache) Get(string, *wasm.GetOptions) (url, checksum string, err error) {
	return "https://envoy-gateway:18002/module.wasm", c.checksum, nil
}

func (wasmCache) Start(context.Context) {}

type policy struct {
	Kind   string
	Name   string
	Status gwapiv1.PolicyStatus
}

type output struct {
	Bootstrap json.RawMessage
	Resources map[string][]json.RawMessage
	Policies  []policy
}

// The loader drops the labels of namespaces, by which a Gateway selects routes.
func restoreLabels(manifests []byte, resources *resource.Resources) error {
	return resource.IterYAMLBytes(manifests, func(text []byte) error {
		var given corev1.Namespace
		if err := yaml.Unmarshal(text, &given); err != nil || given.Kind != "Namespace" {
			return err
		}
		for _, loaded := range resources.Namespaces {
			if loaded.Name == given.Name {
				loaded.Labels = given.Labels
			}
		}
		return nil
	})
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: alb-oidc-translate SHA256 <MANIFESTS")
	}
	manifests, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	resources, err := resource.LoadResourcesFromYAMLBytes(manifests, true, nil)
	if err != nil {
		return err
	}
	if err := restoreLabels(manifests, resources); err != nil {
		return err
	}
	logger := logging.DefaultLogger(os.Stderr, egv1a1.LogLevelInfo)
	gateways := &gatewayapi.Translator{
		GatewayControllerName:   string(resources.GatewayClass.Spec.ControllerName),
		GatewayClassName:        gwapiv1.ObjectName(resources.GatewayClass.Name),
		ControllerNamespace:     namespace,
		EndpointRoutingDisabled: true,
		EnvoyPatchPolicyEnabled: true,
		BackendEnabled:          true,
		WasmCache:               wasmCache{checksum: os.Args[1]},
		Logger:                  logger,
	}
	result, err := gateways.Translate(context.Background(), resources)
	if err != nil {
		return err
	}
	if len(result.XdsIR) != 1 {
		return fmt.Errorf("found %d gateways, expected 1", len(result.XdsIR))
	}
	out := output{Resources: map[string][]json.RawMessage{}}
	for _, p := range result.EnvoyExtensionPolicies {
		out.Policies = append(out.Policies, policy{p.Kind, p.Name, p.Status})
	}
	for _, p := range result.ClientTrafficPolicies {
		out.Policies = append(out.Policies, policy{p.Kind, p.Name, p.Status})
	}
	for _, ir := range result.XdsIR {
		envoy := translator.Translator{ControllerNamespace: namespace, FilterOrder: ir.FilterOrder, Logger: logger}
		table, err := envoy.Translate(context.Background(), ir)
		if err != nil {
			return err
		}
		for kind, resources := range table.XdsResources {
			for _, one := range resources {
				text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(one)
				if err != nil {
					return err
				}
				out.Resources[kind] = append(out.Resources[kind], text)
			}
		}
		for _, p := range table.EnvoyPatchPolicyStatuses {
			out.Policies = append(out.Policies, policy{"EnvoyPatchPolicy", p.Name, *p.Status})
		}
	}
	rendered, err := bootstrap.GetRenderedBootstrapConfig(&bootstrap.RenderBootstrapConfigOptions{TopologyInjectorDisabled: true})
	if err != nil {
		return err
	}
	if proxy := resources.EnvoyProxyForGatewayClass; proxy != nil && proxy.Spec.Bootstrap != nil {
		if err := bootstrap.Validate(proxy.Spec.Bootstrap); err != nil {
			return err
		}
		if rendered, err = bootstrap.ApplyBootstrapConfig(proxy.Spec.Bootstrap, rendered); err != nil {
			return err
		}
	}
	if out.Bootstrap, err = yaml.YAMLToJSON([]byte(rendered)); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
