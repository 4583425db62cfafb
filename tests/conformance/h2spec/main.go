// Runs h2spec's cases against an HTTP/2 server without TLS and prints one JSON line for each case,
// for tests/conformance/test_http2.py. Arguments: the server's host and port, the path to request,
// and the time to wait for a frame: `h2spec 127.0.0.1 5000 /path 500ms`.
//
// The cases run concurrently, each on its own connection: they spend most of their time waiting for
// frames that do not arrive.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// concurrency is how many cases run at once.
const concurrency = 16

// A verdict is a line of the output: outcome is "passed", "failed" or "skipped".
type verdict struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 4 {
		return errors.New("usage: h2spec HOST PORT PATH TIMEOUT")
	}
	port, err := strconv.Atoi(arguments[1])
	if err != nil {
		return err
	}
	timeout, err := time.ParseDuration(arguments[3])
	if err != nil {
		return err
	}
	settings := config.Config{
		Host: arguments[0], Port: port, Path: arguments[2], Timeout: timeout,
		MaxHeaderLen: 4000, Strict: true,
	}
	var (
		waiting sync.WaitGroup
		writing sync.Mutex
		lines   = json.NewEncoder(os.Stdout)
		free    = make(chan struct{}, concurrency)
	)
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		each(group, func(name string, test *spec.TestCase) {
			waiting.Add(1)
			go func() {
				defer waiting.Done()
				free <- struct{}{}
				own := settings
				result := judge(test, &own)
				<-free
				result.Name = name
				writing.Lock()
				defer writing.Unlock()
				if err := lines.Encode(result); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}()
		})
	}
	waiting.Wait()
	return nil
}

// each calls do for every case of a group and of the groups in it.
func each(group *spec.TestGroup, do func(string, *spec.TestCase)) {
	for number, test := range append(group.Tests[:len(group.Tests):len(group.Tests)], group.StrictTests...) {
		do(fmt.Sprintf("%s/%d %s", group.ID(), number+1, test.Desc), test)
	}
	for _, inner := range group.Groups {
		each(inner, do)
	}
}

func judge(test *spec.TestCase, settings *config.Config) verdict {
	connection, err := spec.Dial(settings)
	if err != nil {
		return verdict{Outcome: "failed", Reason: err.Error()}
	}
	defer connection.Close()
	err = test.Run(settings, connection)
	var broken *spec.TestError
	switch {
	case err == nil:
		return verdict{Outcome: "passed"}
	case errors.Is(err, spec.ErrSkipped):
		return verdict{Outcome: "skipped"}
	case errors.As(err, &broken):
		return verdict{Outcome: "failed", Reason: "got " + broken.Actual}
	default:
		return verdict{Outcome: "failed", Reason: err.Error()}
	}
}
