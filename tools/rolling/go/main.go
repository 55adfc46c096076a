// rolling HOST:PORT SERVICE: nacos-sdk-go chooses an instance for each call of a plain client.
//
// Subscribes, as the SDK's users do, takes the SDK's choice for each POST, over connections that are kept,
// and repeats nothing. Ends when its standard input does, with calls=N failed=M.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nacos-group/nacos-sdk-go/v2/clients"
	"github.com/nacos-group/nacos-sdk-go/v2/common/constant"
	"github.com/nacos-group/nacos-sdk-go/v2/model"
	"github.com/nacos-group/nacos-sdk-go/v2/vo"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
	return value
}

func post(client *http.Client, address string) error {
	request, err := http.NewRequest("POST", "http://"+address+"/orders", strings.NewReader("order"))
	if err != nil {
		return err
	}
	request.Header.Set("x-way", "go")
	// Without this net/http sends once more what a closed connection did not take.
	request.GetBody = nil
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != 200 || string(body) != "order" {
		return fmt.Errorf("%d %q", response.StatusCode, body)
	}
	return nil
}

func main() {
	server, service := os.Args[1], os.Args[2]
	var ended atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		ended.Store(true)
	}()

	host, port, err := net.SplitHostPort(server)
	must(0, err)
	folder := must(os.MkdirTemp("", "rolling-go"))
	defer os.RemoveAll(folder)
	config := constant.NewClientConfig(
		constant.WithNotLoadCacheAtStart(true),
		constant.WithLogDir(folder),
		constant.WithCacheDir(folder),
		constant.WithLogLevel("error"),
	)
	naming := must(clients.NewNamingClient(vo.NacosClientParam{
		ClientConfig: config,
		ServerConfigs: []constant.ServerConfig{
			*constant.NewServerConfig(host, must(strconv.ParseUint(port, 10, 16))),
		},
	}))
	must(0, naming.Subscribe(&vo.SubscribeParam{
		ServiceName:       service,
		SubscribeCallback: func([]model.Instance, error) {},
	}))

	client := &http.Client{Timeout: time.Minute}
	calls, failed := 0, 0
	for !ended.Load() {
		chosen := must(naming.SelectOneHealthyInstance(vo.SelectOneHealthInstanceParam{
			ServiceName: service,
		}))
		address := net.JoinHostPort(chosen.Ip, strconv.FormatUint(chosen.Port, 10))
		calls++
		if err := post(client, address); err != nil {
			failed++
			fmt.Fprintf(os.Stderr, "go: %s: %v\n", address, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	naming.CloseClient()
	// The SDK may say things on the standard output, but nothing after this.
	fmt.Printf("calls=%d failed=%d\n", calls, failed)
}
