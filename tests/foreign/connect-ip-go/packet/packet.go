// Package packet makes and reads the few IP packets that the programs of this module send.
package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	protocolICMP   = 1
	protocolUDP    = 17
	protocolICMPv6 = 58
	hopLimit       = 64
	udpHeaderLen   = 8
	echoHeaderLen  = 8
)

// Echo is an ICMP echo request or reply.
type Echo struct {
	Source, Destination netip.Addr
	IsReply             bool
	HopLimit            int
	ID, Sequence        int
	Data                []byte
}

// Marshal makes a whole packet of it.
func (e Echo) Marshal() ([]byte, error) {
	message := icmp.Message{Body: &icmp.Echo{ID: e.ID, Seq: e.Sequence, Data: e.Data}}
	if e.Source.Is4() {
		message.Type = ipv4.ICMPTypeEcho
		if e.IsReply {
			message.Type = ipv4.ICMPTypeEchoReply
		}
		body, err := message.Marshal(nil)
		return wrap(e.Source, e.Destination, protocolICMP, body), err
	}
	message.Type = ipv6.ICMPTypeEchoRequest
	if e.IsReply {
		message.Type = ipv6.ICMPTypeEchoReply
	}
	body, err := message.Marshal(icmp.IPv6PseudoHeader(e.Source.AsSlice(), e.Destination.AsSlice()))
	return wrap(e.Source, e.Destination, protocolICMPv6, body), err
}

// ParseEcho reads an echo request or reply; everything else is an error that says what it was.
func ParseEcho(packet []byte) (Echo, error) {
	header, err := parse(packet)
	if err != nil {
		return Echo{}, err
	}
	if header.protocol != protocolICMP && header.protocol != protocolICMPv6 {
		return Echo{}, fmt.Errorf("protocol %d and not ICMP", header.protocol)
	}
	message, err := icmp.ParseMessage(header.protocol, header.payload)
	if err != nil {
		return Echo{}, err
	}
	body, ok := message.Body.(*icmp.Echo)
	if !ok {
		return Echo{}, fmt.Errorf("ICMP %v code %d from %s", message.Type, message.Code, header.source)
	}
	return Echo{
		Source: header.source, Destination: header.destination, HopLimit: header.hopLimit,
		IsReply: message.Type == ipv4.ICMPTypeEchoReply || message.Type == ipv6.ICMPTypeEchoReply,
		ID:      body.ID, Sequence: body.Seq, Data: body.Data,
	}, nil
}

// MarshalUDP makes a whole packet of a datagram.
func MarshalUDP(source, destination netip.AddrPort, payload []byte) []byte {
	datagram := make([]byte, udpHeaderLen, udpHeaderLen+len(payload))
	binary.BigEndian.PutUint16(datagram[0:], source.Port())
	binary.BigEndian.PutUint16(datagram[2:], destination.Port())
	binary.BigEndian.PutUint16(datagram[4:], uint16(udpHeaderLen+len(payload)))
	datagram = append(datagram, payload...)
	var pseudo []byte
	pseudo = append(pseudo, source.Addr().AsSlice()...)
	pseudo = append(pseudo, destination.Addr().AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(datagram)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, protocolUDP)
	sum := checksum(append(pseudo, datagram...))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(datagram[6:], sum)
	return wrap(source.Addr(), destination.Addr(), protocolUDP, datagram)
}

// ParseUDP reads a datagram; everything else is an error that says what it was.
func ParseUDP(packet []byte) (source, destination netip.AddrPort, payload []byte, err error) {
	header, err := parse(packet)
	if err != nil {
		return
	}
	if header.protocol != protocolUDP || len(header.payload) < udpHeaderLen {
		err = fmt.Errorf("protocol %d and not UDP", header.protocol)
		return
	}
	source = netip.AddrPortFrom(header.source, binary.BigEndian.Uint16(header.payload[0:]))
	destination = netip.AddrPortFrom(header.destination, binary.BigEndian.Uint16(header.payload[2:]))
	return source, destination, header.payload[udpHeaderLen:], nil
}

// OverheadBytes is what an echo of no data is long.
func OverheadBytes(address netip.Addr) int {
	if address.Is4() {
		return ipv4.HeaderLen + echoHeaderLen
	}
	return ipv6.HeaderLen + echoHeaderLen
}

func wrap(source, destination netip.Addr, protocol byte, payload []byte) []byte {
	if source.Is4() {
		header := make([]byte, ipv4.HeaderLen, ipv4.HeaderLen+len(payload))
		header[0] = 4<<4 | ipv4.HeaderLen>>2
		binary.BigEndian.PutUint16(header[2:], uint16(ipv4.HeaderLen+len(payload)))
		// Don't Fragment.
		header[6] = 0x40
		header[8], header[9] = hopLimit, protocol
		copy(header[12:], source.AsSlice())
		copy(header[16:], destination.AsSlice())
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		return append(header, payload...)
	}
	header := make([]byte, ipv6.HeaderLen, ipv6.HeaderLen+len(payload))
	header[0] = 6 << 4
	binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	header[6], header[7] = protocol, hopLimit
	copy(header[8:], source.AsSlice())
	copy(header[24:], destination.AsSlice())
	return append(header, payload...)
}

type header struct {
	source, destination netip.Addr
	protocol, hopLimit  int
	payload             []byte
}

func parse(packet []byte) (header, error) {
	switch {
	case len(packet) >= ipv4.HeaderLen && packet[0]>>4 == 4:
		source, _ := netip.AddrFromSlice(packet[12:16])
		destination, _ := netip.AddrFromSlice(packet[16:20])
		size := int(packet[0]&0xf) * 4
		if size < ipv4.HeaderLen || size > len(packet) || checksum(packet[:size]) != 0 {
			return header{}, errors.New("a broken IPv4 header")
		}
		return header{source, destination, int(packet[9]), int(packet[8]), packet[size:]}, nil
	case len(packet) >= ipv6.HeaderLen && packet[0]>>4 == 6:
		source, _ := netip.AddrFromSlice(packet[8:24])
		destination, _ := netip.AddrFromSlice(packet[24:40])
		return header{source, destination, int(packet[6]), int(packet[7]), packet[ipv6.HeaderLen:]}, nil
	}
	return header{}, fmt.Errorf("%d bytes that are no IP packet", len(packet))
}

func checksum(data []byte) uint16 {
	var sum uint32
	for at := 0; at < len(data); at += 2 {
		sum += uint32(data[at]) << 8
		if at+1 < len(data) {
			sum += uint32(data[at+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
