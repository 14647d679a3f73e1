package proof

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hiddeco/sshsig"

	"github.com/headgate/headgate/objects"
)

// PayloadType is the type of an in-toto statement in an envelope.
const PayloadType = "application/vnd.in-toto+json"

// Namespace is what the gate signs statements under (PROTOCOL.sshsig), so that no
// signature of a commit can be taken for one of a statement.
const Namespace = "dsse@headgate"

// Notes is the ref of the notes.
const Notes = "refs/notes/headgate"

// MaxNote bounds a note, in bytes.
const MaxNote = 32 << 20

// Envelope is a DSSE envelope (Dead Simple Signing Envelope, v1) whose signatures
// are SSH's: the bytes of PROTOCOL.sshsig over the pre-authentication encoding.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"` // base64 in JSON
	Signatures  []Signature `json:"signatures"`
}

// Signature is one of an envelope.
type Signature struct {
	KeyID string `json:"keyid"` // fingerprint of the key, "SHA256:..."; a hint only
	Sig   []byte `json:"sig"`   // base64 in JSON
}

// Signed returns the bytes that signatures are of: DSSE's PAE.
func (e *Envelope) Signed() []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload)
}

// SSH returns the envelope's signature as sshsig reads it.
func (e *Envelope) SSH() (*sshsig.Signature, error) {
	if len(e.Signatures) != 1 {
		return nil, fmt.Errorf("the envelope has %d signatures, want one", len(e.Signatures))
	}
	sig, err := sshsig.ParseSignature(e.Signatures[0].Sig)
	if err != nil {
		return nil, fmt.Errorf("the envelope's signature cannot be read: %w", err)
	}
	return sig, nil
}

// Seal returns the note of a statement. sign signs under Namespace and returns the
// signature's armored form (ssh-keygen -Y sign).
func Seal(s *Statement, fingerprint string, sign func([]byte) ([]byte, error)) ([]byte, error) {
	payload, err := s.Encode()
	if err != nil {
		return nil, err
	}
	e := Envelope{PayloadType: PayloadType, Payload: payload}
	armored, err := sign(e.Signed())
	if err != nil {
		return nil, fmt.Errorf("sign provenance: %w", err)
	}
	sig, err := sshsig.Unarmor(armored)
	if err != nil {
		return nil, fmt.Errorf("sign provenance: %w", err)
	}
	e.Signatures = []Signature{{KeyID: fingerprint, Sig: sig.Marshal()}}
	line, err := json.Marshal(&e)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]byte(s.Text()), []byte("\n"), line, []byte("\n")), nil
}

// Open reads a note: its envelope, whose signature is not checked here, and the
// statement in it. A note whose text says something else than its statement is
// refused, since the text is what people read.
func Open(note []byte) (*Envelope, *Statement, error) {
	text, line, ok := bytes.Cut(note, []byte("\n\n"))
	if !ok || !bytes.HasSuffix(line, []byte("}\n")) {
		return nil, nil, errors.New("the note does not end with an envelope")
	}
	var e Envelope
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, nil, fmt.Errorf("the note's envelope is no JSON of DSSE's form: %w", err)
	}
	if e.PayloadType != PayloadType {
		return nil, nil, fmt.Errorf("the envelope holds %q, want %q", e.PayloadType, PayloadType)
	}
	s, err := ParseStatement(e.Payload)
	if err != nil {
		return nil, nil, err
	}
	if s.Text() != string(text)+"\n" {
		return nil, nil, errors.New("the note's text is not what its statement says")
	}
	return &e, s, nil
}

// Path returns where the note of a commit is in the notes' tree: two levels of
// 256 directories, as git lays out large trees of notes, and always so. A note
// then costs three small trees, and these stay small beyond ten million of them.
func Path(commit objects.OID) string {
	hex := commit.String()
	return hex[:2] + "/" + hex[2:4] + "/" + hex[4:]
}

// Commit returns which commit a path in the notes' tree is the note of, however
// deep git laid it out; false for a file that is no note.
func Commit(path string) (objects.OID, bool) {
	oid, err := objects.ParseOID(strings.ReplaceAll(path, "/", ""))
	return oid, err == nil
}

// Armored returns the signature as ssh-keygen -Y verify reads it.
func (s Signature) Armored() string {
	return "-----BEGIN SSH SIGNATURE-----\n" + base64.StdEncoding.EncodeToString(s.Sig) + "\n-----END SSH SIGNATURE-----\n"
}
