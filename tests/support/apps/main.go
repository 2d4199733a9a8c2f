// An upstream that prints one line per received request; some paths misbehave.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

var raw = map[string]string{
	"half":    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
	"chunk":   "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	"garbage": "\x00\x01\x02 what is this\r\n\r\n",
	"head":    "HTTP/1.1 200 OK\r\nx-big: " + strings.Repeat("a", 10<<20) + "\r\n\r\n",
	"early":   "",
	"open":    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
}

var next = make(chan bool)

func own(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-next:
			fmt.Fprint(w, "data: two\n\n")
		case <-r.Context().Done():
		}
		fmt.Println("ENDED /events")
	case "/go":
		next <- true
		fmt.Fprint(w, "went")
	case "/trailers":
		io.Copy(io.Discard, r.Body)
		sum := r.Trailer.Get("Asked")
		if sum == "" {
			sum = "none"
		}
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "body")
		w.Header().Set("X-Sum", sum)
	case "/hints":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		fmt.Fprint(w, "hinted")
	case "/early":
		w.Header().Set("Content-Length", "3")
		w.WriteHeader(413)
		fmt.Fprint(w, "big")
	case "/big":
		size, _ := strconv.Atoi(r.URL.Query().Get("size"))
		w.Header().Set("Content-Length", strconv.Itoa(size))
		piece := make([]byte, 1<<16)
		for ; size > 0; size -= len(piece) {
			w.Write(piece)
		}
	case "/grpc":
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		w.Write(body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Grpc-Message", r.Proto+" "+r.Header.Get("Te"))
	case "/reset":
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "/never":
		<-r.Context().Done()
	default:
		return false
	}
	return true
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		if name, found := strings.CutPrefix(r.URL.Path, "/raw/"); found {
			connection, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(connection, raw[name])
			connection.Close()
			return
		}
		if own(w, r) {
			return
		}
		size, _ := io.Copy(io.Discard, r.Body)
		fmt.Printf("SAW %s %s %d\n", r.Method, r.RequestURI, size)
		if r.URL.Path == "/count" {
			fmt.Fprint(w, size)
			return
		}
		fmt.Fprint(w, "ok")
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Handler: http.HandlerFunc(answer), Protocols: protocols}
	panic(server.Serve(listener))
}
