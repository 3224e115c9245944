// Command client opens a CONNECT-IP tunnel with connect-ip-go, waits for addresses and routes, and exchanges echoes
// with a host behind the proxy, one at a time, comparing every byte. It prints one JSON object and leaves with 0 or 1.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"bauta.test/foreign/connect-ip-go/packet"
	connectip "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

const packetBytesMax = 1 << 16

type assigned struct {
	ID     uint64 `json:"id"`
	Prefix string `json:"prefix"`
}

type route struct {
	Start    string `json:"start"`
	End      string `json:"end"`
	Protocol int    `json:"protocol"`
}

type result struct {
	OK       bool       `json:"ok"`
	Problem  string     `json:"problem,omitempty"`
	Status   int        `json:"status,omitempty"`
	Assigned []assigned `json:"assigned"`
	Routes   []route    `json:"routes"`
	// IDs of the addresses that were asked for.
	Requested []uint64 `json:"requested"`
	DNS       []string `json:"dns"`
	Echoed    int      `json:"echoed"`
	Datagrams int      `json:"datagrams"`
	// What the hop limit of the last echo was when it came.
	HopLimit int `json:"hop_limit"`
}

type options struct {
	url, ca, ping, udp, sizes, request string
	rounds                             int
	dns                                bool
}

func main() {
	var o options
	flag.StringVar(&o.url, "url", "", "URL of the proxy, without variables")
	flag.StringVar(&o.ca, "ca", "", "trusted authority, `PEM`")
	flag.StringVar(&o.ping, "ping", "", "`address` that answers ICMP echo")
	flag.StringVar(&o.udp, "udp", "", "`host:port` that sends datagrams back")
	flag.StringVar(&o.sizes, "sizes", "64", "payload sizes, comma separated")
	flag.StringVar(&o.request, "request", "", "`prefixes` to ask for, comma separated")
	flag.IntVar(&o.rounds, "rounds", 1, "how often the sizes are gone through")
	flag.BoolVar(&o.dns, "dns", false, "wait for a DNS configuration")
	timeout := flag.Duration("timeout", 20*time.Second, "for everything")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	var outcome result
	done := make(chan error, 1)
	go func() { done <- run(ctx, &outcome, o) }()
	select {
	case err := <-done:
		finish(outcome, err)
	case <-time.After(*timeout + time.Second):
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

func run(ctx context.Context, outcome *result, o options) error {
	tunnel, err := dial(ctx, outcome, o)
	if err != nil {
		return err
	}
	defer tunnel.Close()
	// The proxy may assign addresses unprompted; an answer to a request comes in a list of its own.
	var wanted []netip.Prefix
	for _, text := range strings.FieldsFunc(o.request, func(r rune) bool { return r == ',' }) {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		wanted = append(wanted, prefix)
	}
	if len(wanted) > 0 {
		ids, err := tunnel.RequestAddresses(wanted)
		if err != nil {
			return err
		}
		for _, id := range ids {
			outcome.Requested = append(outcome.Requested, uint64(id))
		}
	}
	addresses, err := waitAddresses(ctx, tunnel, outcome)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	routes, err := tunnel.Routes(ctx)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, r := range routes {
		outcome.Routes = append(outcome.Routes, route{r.StartIP.String(), r.EndIP.String(), int(r.IPProtocol)})
	}
	if o.dns {
		configurations, err := tunnel.ReceiveDNSConfiguration(ctx)
		if err != nil {
			return fmt.Errorf("DNS: %w", err)
		}
		for _, configuration := range configurations {
			for _, server := range configuration.Nameservers {
				for _, address := range append(server.IPv4Addresses, server.IPv6Addresses...) {
					outcome.DNS = append(outcome.DNS, address.String())
				}
			}
		}
	}
	return exchange(ctx, tunnel, outcome, addresses, o)
}

func dial(ctx context.Context, outcome *result, o options) (*connectip.Conn, error) {
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", o.ca)
	}
	template, err := uritemplate.New(o.url)
	if err != nil {
		return nil, err
	}
	request, err := connectip.NewRequest(ctx, template)
	if err != nil {
		return nil, err
	}
	transport := connectip.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}},
	}
	tunnel, response, err := transport.Dial(request)
	if response != nil {
		outcome.Status = response.StatusCode
	}
	return tunnel, err
}

// waitAddresses takes lists until one has an address, and an answer for everything that was asked for.
func waitAddresses(ctx context.Context, tunnel *connectip.Conn, outcome *result) ([]netip.Addr, error) {
	for {
		list, err := tunnel.ReceiveAddressAssignment(ctx)
		if err != nil {
			return nil, err
		}
		outcome.Assigned = nil
		answered := map[uint64]bool{}
		var addresses []netip.Addr
		for _, entry := range list {
			id := uint64(entry.RequestID)
			answered[id] = true
			outcome.Assigned = append(outcome.Assigned, assigned{id, entry.IPPrefix.String()})
			if !entry.Rejected() {
				addresses = append(addresses, entry.IPPrefix.Addr())
			}
		}
		complete := len(addresses) > 0
		for _, id := range outcome.Requested {
			complete = complete && answered[id]
		}
		if complete {
			return addresses, nil
		}
	}
}

func exchange(
	ctx context.Context, tunnel *connectip.Conn, outcome *result, addresses []netip.Addr, o options,
) error {
	var sizes []int
	for _, field := range strings.Split(o.sizes, ",") {
		size, err := strconv.Atoi(field)
		if err != nil || size < 0 {
			return fmt.Errorf("size %q", field)
		}
		sizes = append(sizes, size)
	}
	for turn := 0; turn < o.rounds*len(sizes); turn++ {
		data := payload(turn, sizes[turn%len(sizes)])
		if o.ping != "" {
			if err := ping(ctx, tunnel, outcome, addresses, o.ping, turn, data); err != nil {
				return fmt.Errorf("echo %d: %w", turn, err)
			}
			outcome.Echoed++
		}
		if o.udp != "" {
			if err := datagram(ctx, tunnel, addresses, o.udp, data); err != nil {
				return fmt.Errorf("datagram %d: %w", turn, err)
			}
			outcome.Datagrams++
		}
	}
	return nil
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

func source(addresses []netip.Addr, destination netip.Addr) (netip.Addr, error) {
	for _, address := range addresses {
		if address.Is4() == destination.Is4() {
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address to reach %s from", destination)
}

func send(tunnel *connectip.Conn, sent []byte) error {
	refused, err := tunnel.WritePacket(sent)
	if err == nil && refused != nil {
		err = fmt.Errorf("%d bytes are too large for this tunnel", len(sent))
	}
	return err
}

// receive hands over packets until one is the awaited one; others cross the tunnel too.
func receive(ctx context.Context, tunnel *connectip.Conn, is func([]byte) bool) error {
	found := make(chan error, 1)
	go func() {
		buffer := make([]byte, packetBytesMax)
		for {
			size, err := tunnel.ReadPacket(buffer)
			if err != nil || is(buffer[:size]) {
				found <- err
				return
			}
		}
	}()
	select {
	case err := <-found:
		return err
	case <-ctx.Done():
		return errors.New("no answer in time")
	}
}

func ping(
	ctx context.Context, tunnel *connectip.Conn, outcome *result, addresses []netip.Addr,
	to string, turn int, data []byte,
) error {
	destination, err := netip.ParseAddr(to)
	if err != nil {
		return err
	}
	own, err := source(addresses, destination)
	if err != nil {
		return err
	}
	echo := packet.Echo{Source: own, Destination: destination, ID: 9484, Sequence: turn, Data: data}
	request, err := echo.Marshal()
	if err != nil {
		return err
	}
	if err := send(tunnel, request); err != nil {
		return err
	}
	return receive(ctx, tunnel, func(received []byte) bool {
		reply, err := packet.ParseEcho(received)
		if err != nil {
			fmt.Fprintln(os.Stderr, "received", err)
			return false
		}
		outcome.HopLimit = reply.HopLimit
		return reply.IsReply && reply.Source == destination && reply.Destination == own &&
			reply.ID == echo.ID && reply.Sequence == turn && bytes.Equal(reply.Data, data)
	})
}

func datagram(ctx context.Context, tunnel *connectip.Conn, addresses []netip.Addr, to string, data []byte) error {
	destination, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	address, err := source(addresses, destination.Addr())
	if err != nil {
		return err
	}
	own := netip.AddrPortFrom(address, 9484)
	if err := send(tunnel, packet.MarshalUDP(own, destination, data)); err != nil {
		return err
	}
	return receive(ctx, tunnel, func(received []byte) bool {
		from, at, answer, err := packet.ParseUDP(received)
		if err != nil {
			fmt.Fprintln(os.Stderr, "received", err)
			return false
		}
		return from == destination && at == own && bytes.Equal(answer, data)
	})
}
