// serve FOLDER URL...: Envoy Gateway's cache of Wasm modules. It downloads each module into FOLDER by Envoy Gateway's own code, prints
// the URL and the SHA-256 that Envoy gets for it, one module a line, and serves the modules until its standard input ends.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	"github.com/envoyproxy/gateway/internal/logging"
	"github.com/envoyproxy/gateway/internal/wasm"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	if len(os.Args) < 3 {
		return fmt.Errorf("usage: serve FOLDER URL...")
	}
	cache := wasm.NewHTTPServerWithFileCache(
		wasm.ServerOptions{Salt: []byte("salt")},
		wasm.CacheOptions{CacheDir: os.Args[1]},
		"envoy-gateway-system",
		logging.DefaultLogger(os.Stderr, egv1a1.LogLevelInfo),
	)
	cache.Start(context.Background())
	for _, url := range os.Args[2:] {
		served, checksum, err := cache.Get(url, &wasm.GetOptions{ResourceName: "alb-oidc"})
		if err != nil {
			return err
		}
		fmt.Println(served, checksum)
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
