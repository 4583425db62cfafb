// Goldens builds data frames with Grafana's own SDK and is the only writer of ../golden.
//
//	go run . ../golden      write NAME.json and NAME.arrow for every frame of frames.go
//	go run . check DIR      read the pairs that Python wrote to DIR and compare them with the frames
//
// check prints one line for each frame and exits with 1 if one differs or is missing.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

func main() {
	err := fmt.Errorf("usage: goldens DIR | goldens check DIR")
	switch {
	case len(os.Args) == 2:
		err = write(os.Args[1])
	case len(os.Args) == 3 && os.Args[1] == "check":
		err = check(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(dir string) error {
	for name, frame := range frames() {
		text, err := data.FrameToJSON(frame, data.IncludeAll)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		file, err := frame.MarshalArrow()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".arrow"), file, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func check(dir string) error {
	all := frames()
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	bad := 0
	for _, name := range names {
		if err := checkPair(dir, name, all[name]); err != nil {
			fmt.Printf("%s: %v\n", name, err)
			bad++
			continue
		}
		fmt.Printf("%s: ok\n", name)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d frames differ", bad, len(names))
	}
	return nil
}

func checkPair(dir, name string, want *data.Frame) error {
	text, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return err
	}
	fromJSON := &data.Frame{}
	if err := json.Unmarshal(text, fromJSON); err != nil {
		return fmt.Errorf("JSON: %w", err)
	}
	if diff := cmp.Diff(want, fromJSON, data.FrameTestCompareOptions()...); diff != "" {
		return fmt.Errorf("JSON differs (-Go +Python):\n%s", diff)
	}
	file, err := os.ReadFile(filepath.Join(dir, name+".arrow"))
	if err != nil {
		return err
	}
	fromArrow, err := data.UnmarshalArrowFrame(file)
	if err != nil {
		return fmt.Errorf("Arrow: %w", err)
	}
	if diff := cmp.Diff(want, fromArrow, data.FrameTestCompareOptions()...); diff != "" {
		return fmt.Errorf("Arrow differs (-Go +Python):\n%s", diff)
	}
	return nil
}
