// judge runs one command's streams through the Kubernetes project's own client, for the tests of the streaming server.
//
//	judge [-transport spdy|websocket] [-protocols a,b] [-stdin] [-tty] [-no-stderr] [-sizes 80x24,132x43 -mark TEXT]
//	      [-ca FILE] URL
//	judge -forward 80,443 [-ca FILE] URL
//
// Its standard streams are the command's, and its exit code is the command's; 254 for any other failure, which it
// explains on its standard error. With -sizes the first size is told at once, and the next one whenever -mark has shown
// in the output once more. With -forward it listens on 127.0.0.1 for each of these ports of a pod, says where, and goes on
// until its standard input ends.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// sizes tells a terminal's sizes, one whenever mark has gone by.
type sizes struct {
	out  io.Writer
	mark []byte
	seen bytes.Buffer
	left []remotecommand.TerminalSize
	next chan *remotecommand.TerminalSize
}

func newSizes(text, mark string) (*sizes, error) {
	s := &sizes{out: os.Stdout, mark: []byte(mark), next: make(chan *remotecommand.TerminalSize, 16)}
	for _, part := range strings.Split(text, ",") {
		var size remotecommand.TerminalSize
		if _, err := fmt.Sscanf(part, "%dx%d", &size.Width, &size.Height); err != nil {
			return nil, fmt.Errorf("-sizes: %q: %w", part, err)
		}
		s.left = append(s.left, size)
	}
	s.tell()
	return s, nil
}

func (s *sizes) tell() {
	if len(s.left) > 0 {
		s.next <- &s.left[0]
		s.left = s.left[1:]
	}
}

func (s *sizes) Next() *remotecommand.TerminalSize { return <-s.next }

func (s *sizes) Write(p []byte) (int, error) {
	s.seen.Write(p)
	for len(s.mark) > 0 {
		_, after, found := bytes.Cut(s.seen.Bytes(), s.mark)
		if !found {
			break
		}
		s.seen = *bytes.NewBuffer(bytes.Clone(after))
		s.tell()
	}
	return s.out.Write(p)
}

func executor(transport, target, authority string, protocols []string) (remotecommand.Executor, error) {
	parsed, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	config := &rest.Config{Host: parsed.Host, TLSClientConfig: rest.TLSClientConfig{CAFile: authority}}
	switch transport {
	case "spdy":
		roundTripper, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		if len(protocols) == 0 {
			return remotecommand.NewSPDYExecutorForTransports(roundTripper, upgrader, "POST", parsed)
		}
		return remotecommand.NewSPDYExecutorForProtocols(roundTripper, upgrader, "POST", parsed, protocols...)
	case "websocket":
		if len(protocols) == 0 {
			return remotecommand.NewWebSocketExecutor(config, "GET", target)
		}
		return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", target, protocols...)
	}
	return nil, fmt.Errorf("-transport: %q is neither spdy nor websocket", transport)
}

func forward(target, authority string, ports []string) error {
	parsed, err := url.Parse(target)
	if err != nil {
		return err
	}
	roundTripper, upgrader, err := spdy.RoundTripperFor(
		&rest.Config{Host: parsed.Host, TLSClientConfig: rest.TLSClientConfig{CAFile: authority}})
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: roundTripper}, "POST", parsed)
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	for i, port := range ports {
		ports[i] = ":" + port
	}
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, ports, stop, nil, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return forwarder.ForwardPorts()
}

func run() error {
	transport := flag.String("transport", "spdy", "spdy or websocket")
	protocolNames := flag.String("protocols", "", "protocols to offer; the client's own if empty")
	stdin := flag.Bool("stdin", false, "send standard input")
	tty := flag.Bool("tty", false, "the command has a terminal")
	noStderr := flag.Bool("no-stderr", false, "do not ask for standard error")
	sizeList := flag.String("sizes", "", "the terminal's sizes")
	mark := flag.String("mark", "", "text in the output that brings the next size")
	authority := flag.String("ca", "", "PEM file of those who vouch for an https URL's server; the system's if empty")
	forwarded := flag.String("forward", "", "ports of a pod to forward")
	flag.Parse()
	if flag.NArg() != 1 {
		return errors.New("one URL must be given")
	}
	if *forwarded != "" {
		return forward(flag.Arg(0), *authority, strings.Split(*forwarded, ","))
	}
	var protocols []string
	if *protocolNames != "" {
		protocols = strings.Split(*protocolNames, ",")
	}
	streams, err := executor(*transport, flag.Arg(0), *authority, protocols)
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: *tty}
	if *stdin {
		options.Stdin = os.Stdin
	}
	if !*tty && !*noStderr {
		options.Stderr = os.Stderr
	}
	if *sizeList != "" {
		queue, err := newSizes(*sizeList, *mark)
		if err != nil {
			return err
		}
		options.Stdout = queue
		options.TerminalSizeQueue = queue
	}
	return streams.StreamWithContext(context.Background(), options)
}

func main() {
	err := run()
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		os.Exit(exit.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(254)
	}
}
