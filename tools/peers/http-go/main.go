// Instances on Go's net/http: http-go INSTANCES IDLE_TIMEOUT_MS
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

type key struct{}

var (
	lock sync.Mutex
	seen = map[string]int{}
)

func note(r *http.Request) {
	if id := r.Header.Get("x-id"); id != "" {
		lock.Lock()
		seen[id]++
		lock.Unlock()
	}
}

// End closes the connection of a request, HTTP/1 or HTTP/2.
func end(r *http.Request, reset bool) {
	conn := r.Context().Value(key{}).(*net.TCPConn)
	if reset {
		conn.SetLinger(0)
	}
	conn.Close()
}

func main() {
	log.SetOutput(io.Discard) // net/http reports each panic
	instances, _ := strconv.Atoi(os.Args[1])
	idle, _ := strconv.Atoi(os.Args[2])
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) {
		note(r)
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "good")
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("a handler that panics") })
	mux.HandleFunc("/close", func(_ http.ResponseWriter, r *http.Request) { end(r, false) })
	mux.HandleFunc("/reset", func(_ http.ResponseWriter, r *http.Request) { end(r, true) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-length", "100")
		io.WriteString(w, "ten bytes.")
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "good")
		time.AfterFunc(time.Millisecond, func() { end(r, false) })
	})
	mux.HandleFunc("/twice", func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		twice := 0
		for _, times := range seen {
			if times > 1 {
				twice++
			}
		}
		fmt.Fprint(w, twice)
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	said := "listening"
	for range instances {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		server := &http.Server{
			Handler:     mux,
			IdleTimeout: time.Duration(idle) * time.Millisecond,
			Protocols:   protocols,
			ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
				return context.WithValue(ctx, key{}, conn)
			},
		}
		go server.Serve(listener)
		said += fmt.Sprintf(" %d", listener.Addr().(*net.TCPAddr).Port)
	}
	fmt.Println(said)
	io.Copy(io.Discard, os.Stdin)
}
