// Command proxy is a CONNECT-IP proxy made of connect-ip-go. It needs no rights: every host behind it is this program,
// which answers ICMP echo and sends UDP datagrams back. It prints `listening on ADDR:PORT` once it is bound, and a line
// for every tunnel, every address request and every packet that it does not answer.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"bauta.test/foreign/connect-ip-go/packet"
	connectip "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

const (
	// The default template with both variables at their wildcard: connect-ip-go knows no others.
	pathPrefix     = "/.well-known/masque/ip/"
	packetBytesMax = 1 << 16
	// initialPacketSize lets 1280 byte packets through from the first on.
	initialPacketSize = 1400
)

type settings struct {
	listen, certificate, key, host string
	assign, routes, dns            []string
}

func main() {
	var s settings
	flag.StringVar(&s.listen, "listen", "127.0.0.1:0", "`address` to bind")
	flag.StringVar(&s.certificate, "certificate", "", "certificate chain, `PEM`")
	flag.StringVar(&s.key, "key", "", "private key, `PEM`")
	list := func(name, value, usage string, into *[]string) {
		*into = strings.Split(value, ",")
		flag.Func(name, usage, func(text string) error {
			*into = strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
			return nil
		})
	}
	list("assign", "192.0.2.11/32,2001:db8:1::11/128", "`prefixes` for the client", &s.assign)
	list("routes", "0.0.0.0-255.255.255.255,::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "`ranges`", &s.routes)
	list("dns", "", "`addresses` of name servers", &s.dns)
	flag.Parse()
	if err := run(s); err != nil {
		log.Fatal(err)
	}
}

func run(s settings) error {
	pair, err := tls.LoadX509KeyPair(s.certificate, s.key)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", s.listen)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	defer socket.Close()
	// connect-ip-go compares :authority with the host of the template, and the path is for its user to look at.
	template, err := uritemplate.New(fmt.Sprintf("https://%s%s*/*/", socket.LocalAddr(), pathPrefix))
	if err != nil {
		return err
	}
	assign, routes, dns, err := parse(s)
	if err != nil {
		return err
	}
	handler := func(response http.ResponseWriter, request *http.Request) {
		tunnel, err := accept(template, response, request)
		if err != nil {
			log.Print(err)
			return
		}
		fmt.Printf("tunnel from %s, path %s\n", request.RemoteAddr, request.URL.Path)
		serve(tunnel, assign, routes, dns)
		fmt.Println("tunnel over")
	}
	server := http3.Server{
		TLSConfig:       http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: initialPacketSize},
		EnableDatagrams: true,
		Handler:         http.HandlerFunc(handler),
	}
	fmt.Printf("listening on %s\n", socket.LocalAddr())
	return server.Serve(socket)
}

func parse(s settings) (
	assign []netip.Prefix, routes []connectip.IPRoute, dns []connectip.DNSConfiguration, err error,
) {
	for _, text := range s.assign {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, nil, nil, err
		}
		assign = append(assign, prefix)
	}
	for _, text := range s.routes {
		first, last, _ := strings.Cut(text, "-")
		start, err := netip.ParseAddr(first)
		if err != nil {
			return nil, nil, nil, err
		}
		end, err := netip.ParseAddr(last)
		if err != nil {
			return nil, nil, nil, err
		}
		routes = append(routes, connectip.IPRoute{StartIP: start, EndIP: end})
	}
	var server connectip.DNSNameserver
	for _, text := range s.dns {
		if text == "" {
			continue
		}
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, nil, nil, err
		}
		server.ServicePriority = 1
		if address.Is4() {
			server.IPv4Addresses = append(server.IPv4Addresses, address)
		} else {
			server.IPv6Addresses = append(server.IPv6Addresses, address)
		}
	}
	if server.ServicePriority != 0 {
		configuration := connectip.DNSConfiguration{
			Nameservers: []connectip.DNSNameserver{server}, InternalDomains: []string{""},
		}
		dns = append(dns, configuration)
	}
	return assign, routes, dns, nil
}

func accept(
	template *uritemplate.Template, response http.ResponseWriter, request *http.Request,
) (*connectip.Conn, error) {
	parsed, err := connectip.ParseProxyRequest(request, template)
	if err != nil {
		status := http.StatusBadRequest
		var refused *connectip.ProxyRequestParseError
		if errors.As(err, &refused) {
			status = refused.HTTPStatus
		}
		response.WriteHeader(status)
		return nil, fmt.Errorf("%d: %w", status, err)
	}
	if !strings.HasPrefix(request.URL.Path, pathPrefix) {
		response.WriteHeader(http.StatusNotFound)
		return nil, fmt.Errorf("404: %s", request.URL.Path)
	}
	var proxy connectip.Proxy
	return proxy.Proxy(response, parsed)
}

func serve(
	tunnel *connectip.Conn, assign []netip.Prefix, routes []connectip.IPRoute, dns []connectip.DNSConfiguration,
) {
	defer tunnel.Close()
	if err := tunnel.AssignAddresses(assign); err != nil {
		log.Print(err)
		return
	}
	if err := tunnel.AdvertiseRoute(routes); err != nil {
		log.Print(err)
		return
	}
	if len(dns) > 0 {
		if err := tunnel.SendDNSConfiguration(dns); err != nil {
			log.Print(err)
			return
		}
	}
	go answerRequests(tunnel, assign)
	go watchRoutes(tunnel)
	buffer := make([]byte, packetBytesMax)
	for {
		size, err := tunnel.ReadPacket(buffer)
		if err != nil {
			return
		}
		reply := answer(buffer[:size])
		if reply == nil {
			continue
		}
		refused, err := tunnel.WritePacket(reply)
		if err != nil {
			return
		}
		if refused != nil {
			fmt.Printf("%d bytes are too large for this tunnel\n", len(reply))
		}
	}
}

// answerRequests gives every requested family its prefix of the list, and refuses what it has none for.
func answerRequests(tunnel *connectip.Conn, assign []netip.Prefix) {
	for {
		request, err := tunnel.ReceiveAddressRequest(context.Background())
		if err != nil {
			return
		}
		fmt.Printf("address request %v\n", request.Prefixes)
		left := append([]netip.Prefix(nil), assign...)
		given := make([]netip.Prefix, len(request.Prefixes))
		for i, wanted := range request.Prefixes {
			for j, prefix := range left {
				if prefix.Addr().Is4() == wanted.Addr().Is4() {
					given[i], left = prefix, append(left[:j:j], left[j+1:]...)
					break
				}
			}
		}
		if err := request.Respond(given, left); err != nil {
			log.Print(err)
			return
		}
	}
}

// watchRoutes prints what the client advertises.
func watchRoutes(tunnel *connectip.Conn) {
	for {
		routes, err := tunnel.Routes(context.Background())
		if err != nil {
			return
		}
		fmt.Printf("routes of the client %v\n", routes)
	}
}

func answer(received []byte) []byte {
	if echo, err := packet.ParseEcho(received); err == nil && !echo.IsReply {
		echo.Source, echo.Destination, echo.IsReply = echo.Destination, echo.Source, true
		reply, err := echo.Marshal()
		if err != nil {
			log.Print(err)
		}
		return reply
	}
	if from, to, payload, err := packet.ParseUDP(received); err == nil {
		return packet.MarshalUDP(to, from, payload)
	}
	fmt.Printf("not answered: % x\n", received[:min(len(received), 48)])
	return nil
}
