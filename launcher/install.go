package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// installed is the argument with which install tries whether the copy can be started.
const installed = "installed"

// install copies the package into the plugin folder, as <plugins>/<id>, for an init container or a
// machine whose media cannot execute programs. A folder of that name is replaced when the copy is
// complete.
func (c conf) install(here string, arguments []string, executable string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("expected the plugin folder, got %d arguments: %s install DIR", len(arguments),
			filepath.Base(executable))
	}
	if c["id"] == "" || c["contents"] == "" {
		return fmt.Errorf("launch.conf: expected id and contents; package the plugin again")
	}
	plugins, err := filepath.Abs(arguments[0])
	if err != nil {
		return err
	}
	if info, err := os.Stat(plugins); err != nil || !info.IsDir() {
		return fmt.Errorf("expected an existing folder, got %q", arguments[0])
	}
	target := filepath.Join(plugins, c["id"])
	if target == here {
		return fmt.Errorf("expected another folder than that of the package, got %q", arguments[0])
	}
	if _, err := os.Stat(target); err == nil {
		if _, err := os.Stat(filepath.Join(target, "plugin.json")); err != nil {
			return fmt.Errorf("%s exists and is not a plugin; remove it", target)
		}
	}
	unfinished, err := os.MkdirTemp(plugins, ".installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	if err := c.copyAll(here, filepath.Join(unfinished, "new")); err != nil {
		return err
	}
	copied := filepath.Join(unfinished, "new", filepath.Base(executable))
	if err := tryStart(copied); err != nil {
		return fmt.Errorf("programs in %s cannot be started: %v; use a folder that is not mounted with noexec",
			plugins, err)
	}
	old := filepath.Join(unfinished, "old")
	if err := os.Rename(target, old); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Rename(filepath.Join(unfinished, "new"), target); err != nil {
		os.Rename(old, target)
		return err
	}
	fmt.Println(target)
	return nil
}

func tryStart(program string) error {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr} // without them Go needs /dev/null
	process, err := os.StartProcess(program, []string{program, installed}, &os.ProcAttr{Files: files})
	if err != nil {
		return err
	}
	state, err := process.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %v", program, state)
	}
	return err
}

// copyAll copies the names in contents only: in a container the package is the root folder, next to
// those of the system.
func (c conf) copyAll(here, to string) error {
	if err := makeFolder(to); err != nil {
		return err
	}
	for _, name := range strings.Split(c["contents"], "/") {
		err := filepath.WalkDir(filepath.Join(here, name), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(here, path)
			if err != nil {
				return err
			}
			return copyOne(path, filepath.Join(to, relative), entry)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func makeFolder(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755) // whatever the umask is
}

func copyOne(from, to string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if entry.IsDir() {
		return makeFolder(to)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("expected a regular file, got %s", from)
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return err
	}
	if err := target.Close(); err != nil {
		return err
	}
	return os.Chmod(to, info.Mode().Perm())
}
