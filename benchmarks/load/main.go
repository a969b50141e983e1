// Load on a cluster, one request at a time from each of many clients; prints what came of it as JSON.
//
// The same program drives huton (RESP, the protocol of redis) and etcd (its own client), so that neither is measured
// by a better one. Every answer is checked: what is no success is counted as an error.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
)

// A client makes one request at a time.
type client interface {
	put(key, value string) error
	get(key string) (string, error)
}

// ---------------------------------------------------------------- RESP

type respClient struct {
	connection net.Conn
	reader     *bufio.Reader
}

func newRespClient(endpoint string) (client, error) {
	connection, err := net.Dial("tcp", endpoint)
	if err != nil {
		return nil, err
	}
	return &respClient{connection, bufio.NewReader(connection)}, nil
}

func (c *respClient) ask(arguments ...string) (string, error) {
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(arguments))
	for _, argument := range arguments {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(argument), argument)
	}
	if _, err := io.WriteString(c.connection, request.String()); err != nil {
		return "", err
	}
	line, err := c.reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '+':
		return line[1:], nil
	case '$':
		size, err := strconv.Atoi(line[1:])
		if err != nil || size < 0 {
			return "", fmt.Errorf("no such key")
		}
		data := make([]byte, size+2)
		_, err = io.ReadFull(c.reader, data)
		return string(data[:size]), err
	}
	return "", fmt.Errorf("%s", line)
}

func (c *respClient) put(key, value string) error {
	answer, err := c.ask("SET", key, value)
	if err == nil && answer != "OK" {
		err = fmt.Errorf("SET was answered with %q", answer)
	}
	return err
}

func (c *respClient) get(key string) (string, error) { return c.ask("GET", key) }

// ---------------------------------------------------------------- etcd

type etcdClient struct{ etcd *clientv3.Client }

func newEtcdClient(endpoint string) (client, error) {
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	return &etcdClient{etcd}, err
}

func (c *etcdClient) put(key, value string) error {
	_, err := c.etcd.Put(context.Background(), key, value)
	return err
}

func (c *etcdClient) get(key string) (string, error) {
	answer, err := c.etcd.Get(context.Background(), key)
	if err != nil {
		return "", err
	}
	if len(answer.Kvs) != 1 {
		return "", fmt.Errorf("%d keys", len(answer.Kvs))
	}
	return string(answer.Kvs[0].Value), nil
}

// ---------------------------------------------------------------- load

type result struct {
	Operations int                `json:"operations"`
	Errors     int                `json:"errors"`
	FirstError string             `json:"first_error"`
	Seconds    float64            `json:"seconds"`
	Latency    map[string]float64 `json:"latency_ms"`
}

func main() {
	kind := flag.String("kind", "resp", "resp or etcd")
	endpoints := flag.String("endpoints", "", "host:port of each node, separated by commas")
	clients := flag.Int("clients", 64, "how many; client n asks node n modulo the nodes")
	seconds := flag.Float64("seconds", 5, "how long")
	operation := flag.String("op", "put", "put or get")
	size := flag.Int("size", 100, "bytes of a value")
	keys := flag.Int("keys", 2000, "how many keys there are")
	flag.Parse()

	make_ := map[string]func(string) (client, error){"resp": newRespClient, "etcd": newEtcdClient}[*kind]
	nodes := strings.Split(*endpoints, ",")
	value := strings.Repeat("v", *size)
	all := make([]client, *clients)
	for n := range all {
		made, err := make_(nodes[n%len(nodes)])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		all[n] = made
	}

	var wait sync.WaitGroup
	latencies := make([][]time.Duration, *clients)
	errors := make([]int, *clients)
	first := make([]string, *clients)
	begun := time.Now()
	end := begun.Add(time.Duration(*seconds * float64(time.Second)))
	for n := range all {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			for number := n; time.Now().Before(end); number += *clients {
				key := fmt.Sprintf("key-%08d", number%*keys)
				at := time.Now()
				var err error
				if *operation == "put" {
					err = all[n].put(key, value)
				} else {
					var found string
					found, err = all[n].get(key)
					if err == nil && found != value {
						err = fmt.Errorf("another value: %q", found)
					}
				}
				if err != nil {
					errors[n]++
					first[n] = err.Error()
					continue
				}
				latencies[n] = append(latencies[n], time.Since(at))
			}
		}(n)
	}
	wait.Wait()
	took := time.Since(begun)

	done := result{Seconds: took.Seconds(), Latency: map[string]float64{}}
	var together []time.Duration
	for n := range all {
		together = append(together, latencies[n]...)
		done.Errors += errors[n]
		if done.FirstError == "" {
			done.FirstError = first[n]
		}
	}
	done.Operations = len(together)
	sort.Slice(together, func(a, b int) bool { return together[a] < together[b] })
	for name, part := range map[string]float64{"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1} {
		if len(together) > 0 {
			at := int(part*float64(len(together))) - 1
			if at < 0 {
				at = 0
			}
			done.Latency[name] = float64(together[at].Microseconds()) / 1000
		}
	}
	json.NewEncoder(os.Stdout).Encode(done)
}
