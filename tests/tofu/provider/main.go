// A provider that knows the schema of hashicorp/aws 6.62.0 for the resources of istio/terraform.
// `tofu validate` and `tofu test` with mocks ask for nothing else. It reaches no network.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"log"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// Resources by name. Taken from the provider's CDK bindings.
//
//go:embed schema.json
var schemaJSON []byte

type attribute struct {
	Type     any  `json:"type"` // "string", ["list", "string"] or ["map", "string"]
	Optional bool `json:"optional"`
	Computed bool `json:"computed"`
}

type nestedBlock struct {
	Required bool  `json:"required"`
	List     bool  `json:"list"` // more than one block
	Block    block `json:"block"`
}

type block struct {
	Attributes map[string]attribute   `json:"attributes"`
	Blocks     map[string]nestedBlock `json:"blocks"`
}

func typeOf(description any) (tftypes.Type, error) {
	switch description := description.(type) {
	case string:
		scalars := map[string]tftypes.Type{
			"bool": tftypes.Bool, "number": tftypes.Number, "string": tftypes.String,
		}
		if scalar, known := scalars[description]; known {
			return scalar, nil
		}
	case []any:
		if len(description) == 2 {
			element, err := typeOf(description[1])
			if err != nil {
				return nil, err
			}
			if description[0] == "map" {
				return tftypes.Map{ElementType: element}, nil
			}
			// The bindings do not tell sets from lists. The resources here have sets.
			return tftypes.Set{ElementType: element}, nil
		}
	}
	return nil, fmt.Errorf("unknown type %v", description)
}

func schemaBlock(from block) (*tfprotov6.SchemaBlock, error) {
	to := &tfprotov6.SchemaBlock{}
	for name, attribute := range from.Attributes {
		kind, err := typeOf(attribute.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		to.Attributes = append(to.Attributes, &tfprotov6.SchemaAttribute{
			Name:     name,
			Type:     kind,
			Required: !attribute.Optional && !attribute.Computed,
			Optional: attribute.Optional,
			Computed: attribute.Optional || attribute.Computed,
		})
	}
	for name, nested := range from.Blocks {
		inner, err := schemaBlock(nested.Block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		one := &tfprotov6.SchemaNestedBlock{
			TypeName: name, Block: inner, Nesting: tfprotov6.SchemaNestedBlockNestingModeList,
		}
		if nested.Required {
			one.MinItems = 1
		}
		if !nested.List {
			one.MaxItems = 1
		}
		to.BlockTypes = append(to.BlockTypes, one)
	}
	return to, nil
}

// Methods that it does not have are never called with mocks.
type provider struct {
	tfprotov6.ProviderServer
	resources map[string]*tfprotov6.Schema
}

func (p provider) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	return &tfprotov6.GetMetadataResponse{}, nil
}

func (p provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	region := &tfprotov6.SchemaAttribute{Name: "region", Type: tftypes.String, Optional: true}
	own := &tfprotov6.SchemaBlock{Attributes: []*tfprotov6.SchemaAttribute{region}}
	return &tfprotov6.GetProviderSchemaResponse{
		Provider: &tfprotov6.Schema{Block: own}, ResourceSchemas: p.resources,
	}, nil
}

func (p provider) ValidateProviderConfig(_ context.Context, request *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: request.Config}, nil
}

func (p provider) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (p provider) ConfigureProvider(context.Context, *tfprotov6.ConfigureProviderRequest) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{}, nil
}

func (p provider) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

func (p provider) UpgradeResourceState(_ context.Context, request *tfprotov6.UpgradeResourceStateRequest) (*tfprotov6.UpgradeResourceStateResponse, error) {
	schema, known := p.resources[request.TypeName]
	if !known {
		return nil, fmt.Errorf("unknown resource %s", request.TypeName)
	}
	value, err := request.RawState.Unmarshal(schema.ValueType())
	if err != nil {
		return nil, err
	}
	state, err := tfprotov6.NewDynamicValue(schema.ValueType(), value)
	return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &state}, err
}

func main() {
	var blocks map[string]block
	if err := json.Unmarshal(schemaJSON, &blocks); err != nil {
		log.Fatal(err)
	}
	resources := map[string]*tfprotov6.Schema{}
	for name, block := range blocks {
		schema, err := schemaBlock(block)
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		resources[name] = &tfprotov6.Schema{Block: schema}
	}
	server := func() tfprotov6.ProviderServer { return provider{resources: resources} }
	if err := tf6server.Serve("registry.opentofu.org/hashicorp/aws", server); err != nil {
		log.Fatal(err)
	}
}
