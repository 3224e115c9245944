// Command proxy is a CONNECT-UDP proxy made of masque-go. It serves the well-known template of RFC 9298 on a free
// port and prints `listening on ADDR:PORT` once it is bound.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

const (
	// initialPacketSize lets 1200 byte payloads through from the first packet on.
	initialPacketSize = 1400
	// smallPacketSize fits into a tunnel of such a proxy.
	smallPacketSize = 1280
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to bind")
	certificate := flag.String("certificate", "", "certificate chain, `PEM`")
	key := flag.String("key", "", "private key, `PEM`")
	// masque-go ends a tunnel at the first packet of its target that is too large, and probes of the path MTU are.
	small := flag.Bool("small-packets", false, "send and probe nothing that is too large for a tunnel")
	flag.Parse()
	config := quic.Config{EnableDatagrams: true, InitialPacketSize: initialPacketSize}
	if *small {
		config.InitialPacketSize = smallPacketSize
		config.DisablePathMTUDiscovery = true
	}
	if err := run(*listen, *certificate, *key, &config); err != nil {
		log.Fatal(err)
	}
}

func run(listen, certificate, key string, config *quic.Config) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", listen)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	defer socket.Close()

	// masque-go compares :authority with the host of the template.
	template, err := uritemplate.New(
		fmt.Sprintf("https://%s/.well-known/masque/udp/{target_host}/{target_port}/", socket.LocalAddr()))
	if err != nil {
		return err
	}
	var proxy masque.Proxy
	defer proxy.Close()
	server := http3.Server{
		TLSConfig:       http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig:      config,
		EnableDatagrams: true,
		Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			serve(&proxy, template, response, request)
		}),
	}
	fmt.Printf("listening on %s\n", socket.LocalAddr())
	return server.Serve(socket)
}

func serve(proxy *masque.Proxy, template *uritemplate.Template, response http.ResponseWriter, request *http.Request) {
	parsed, err := masque.ParseRequest(request, template)
	if err != nil {
		status := http.StatusBadRequest
		var refused *masque.RequestParseError
		if errors.As(err, &refused) {
			status = refused.HTTPStatus
		}
		log.Printf("%d: %v", status, err)
		response.WriteHeader(status)
		return
	}
	if err := proxy.Proxy(response, parsed); err != nil {
		log.Printf("%s: %v", parsed.Target, err)
	}
}
