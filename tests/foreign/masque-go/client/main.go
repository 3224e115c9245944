// Command client opens one CONNECT-UDP tunnel with masque-go, sends payloads of the given sizes to a target that
// echoes, one at a time, and compares every byte. It prints one JSON object and leaves with 0 or 1.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

type result struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	Status  int    `json:"status,omitempty"`
	Echoed  int    `json:"echoed"`
	Bytes   int    `json:"bytes"`
}

func main() {
	template := flag.String("template", "", "URI template of the proxy")
	target := flag.String("target", "", "`host:port` that echoes")
	ca := flag.String("ca", "", "trusted authority, `PEM`")
	list := flag.String("sizes", "64", "payload sizes, comma separated")
	rounds := flag.Int("rounds", 1, "how often the sizes are gone through")
	timeout := flag.Duration("timeout", 20*time.Second, "for everything")
	flag.Parse()

	var outcome result
	done := make(chan error, 1)
	go func() { done <- run(&outcome, *template, *target, *ca, *list, *rounds) }()
	select {
	case err := <-done:
		finish(outcome, err)
	case <-time.After(*timeout):
		// The tunnel may still be writing to the outcome: report the timeout alone.
		finish(result{}, fmt.Errorf("not done within %s", *timeout))
	}
}

func finish(outcome result, err error) {
	outcome.OK = err == nil
	code := 0
	if err != nil {
		outcome.Problem, code = err.Error(), 1
		fmt.Fprintln(os.Stderr, "FAILED:", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(outcome); err != nil {
		code = 1
	}
	os.Exit(code)
}

func run(outcome *result, rawTemplate, target, ca, list string, rounds int) error {
	sizes, err := parseSizes(list)
	if err != nil {
		return err
	}
	template, err := uritemplate.New(rawTemplate)
	if err != nil {
		return err
	}
	tlsConfig, err := trust(ca)
	if err != nil {
		return err
	}
	client := masque.Client{TLSClientConfig: tlsConfig}
	defer client.Close()
	tunnel, response, err := client.DialAddr(context.Background(), template, target)
	if response != nil {
		outcome.Status = response.StatusCode
	}
	if err != nil {
		return err
	}
	defer tunnel.Close()
	for turn := 0; turn < rounds*len(sizes); turn++ {
		if err := echo(tunnel, payload(turn, sizes[turn%len(sizes)])); err != nil {
			return fmt.Errorf("turn %d: %w", turn, err)
		}
		outcome.Echoed++
		outcome.Bytes += sizes[turn%len(sizes)]
	}
	return nil
}

func trust(ca string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", ca)
	}
	return &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}}, nil
}

func parseSizes(list string) ([]int, error) {
	var sizes []int
	for _, field := range strings.Split(list, ",") {
		size, err := strconv.Atoi(field)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("size %q", field)
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// payload makes bytes that differ from turn to turn.
func payload(turn, size int) []byte {
	var out []byte
	for block := 0; len(out) < size; block++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "turn %d block %d", turn, block))
		out = append(out, sum[:]...)
	}
	return out[:size]
}

func echo(tunnel net.PacketConn, sent []byte) error {
	if _, err := tunnel.WriteTo(sent, nil); err != nil {
		return err
	}
	received := make([]byte, 65536)
	n, _, err := tunnel.ReadFrom(received)
	if err != nil {
		return err
	}
	if !bytes.Equal(received[:n], sent) {
		return fmt.Errorf("sent %d bytes, got %d other bytes", len(sent), n)
	}
	return nil
}
