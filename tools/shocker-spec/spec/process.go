package spec

import (
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/passwd"
	"shocker.sh/lib/store"
	"shocker.sh/lib/sys"
)

// arguments is what the container executes: the image's entry point, or the
// one asked for, and the command given, or the image's.
func arguments(img store.ImageConfig, o *Options) ([]string, error) {
	entrypoint, cmd := img.Entrypoint, img.Cmd
	if o.Entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *o.Entrypoint != "" {
			entrypoint = []string{*o.Entrypoint}
		}
	}
	if len(o.Args) > 0 {
		cmd = o.Args
	}
	if len(o.Args) == 1 && IsShell(o.Args[0]) {
		cmd = []string{"/bin/sh", "-c", o.Args[0]}
	}
	args := append(append([]string{}, entrypoint...), cmd...)
	if len(args) == 0 {
		return nil, applet.Usagef("the image names no program, and none is given")
	}
	return args, nil
}

// IsShell says whether a single argument is a line for the shell: it holds
// white space or an operator.
func IsShell(arg string) bool { return strings.ContainsAny(arg, " \t\n|&;<>()") }

// environment is the image's, with PATH, HOME and HOSTNAME as every program
// expects them, changed by what was asked for. "-e NAME" passes on the
// caller's, if there is one.
func environment(img store.ImageConfig, home, hostname string, o *Options) ([]string, error) {
	env := &variables{at: make(map[string]int)}
	env.set(defaultPath)
	env.set("HOSTNAME=" + hostname)
	if o.TTY {
		env.set("TERM=xterm")
	}
	env.set("HOME=" + home)
	for _, v := range img.Env {
		env.set(v)
	}
	for _, v := range o.Env {
		name, _, found := strings.Cut(v, "=")
		if name == "" {
			return nil, applet.Usagef("-e %q: want NAME=VALUE, or NAME to pass on your own", v)
		}
		if !found {
			value, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			v = name + "=" + value
		}
		env.set(v)
	}
	return env.list, nil
}

// variables is an environment in which the last setting of a name counts.
type variables struct {
	list []string
	at   map[string]int // index of a name
}

func (e *variables) set(v string) {
	name, _, _ := strings.Cut(v, "=")
	if i, ok := e.at[name]; ok {
		e.list[i] = v
		return
	}
	e.at[name] = len(e.list)
	e.list = append(e.list, v)
}

// process fills in the program, looking up its user in the image's tree.
func process(tree string, img store.ImageConfig, hostname string, o *Options) (*specs.Process, error) {
	args, err := arguments(img, o)
	if err != nil {
		return nil, err
	}
	root, err := sys.OpenDir(tree)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name := img.User
	if o.User != "" {
		name = o.User
	}
	user, err := passwd.Lookup(root, name)
	if err != nil {
		return nil, err
	}
	env, err := environment(img, user.Home, hostname, o)
	if err != nil {
		return nil, err
	}
	cwd := "/"
	for _, dir := range []string{img.WorkingDir, o.Workdir} {
		if dir != "" {
			cwd = dir
		}
	}
	if !strings.HasPrefix(cwd, "/") {
		return nil, applet.Usagef("working directory %q: want an absolute path", cwd)
	}
	p := &specs.Process{
		Terminal:        o.TTY,
		User:            specs.User{UID: user.UID, GID: user.GID, AdditionalGids: user.Groups},
		Args:            args,
		Env:             env,
		Cwd:             cwd,
		NoNewPrivileges: !o.NewPrivileges,
		Capabilities:    &specs.LinuxCapabilities{Bounding: capabilities},
	}
	if user.UID == 0 {
		p.Capabilities.Effective = capabilities
		p.Capabilities.Permitted = capabilities
	}
	for _, s := range append(append([]string{cwd}, args...), env...) {
		if strings.ContainsRune(s, 0) {
			return nil, fmt.Errorf("%q: a NUL byte cannot be passed to a program", s)
		}
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("%q is not UTF-8: a record cannot carry it", s)
		}
	}
	return p, nil
}
