//! Records of a CSV file (RFC 4180), with the faults of their quotes.
//!
//! A faulty record ends where Python's csv module ends it, so row numbers are the same. Quotes are checked more
//! strictly than there: a cell without surrounding quotes must not contain any.

/// A record.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// The bytes of each cell, without the surrounding quotes.
    pub cells: Vec<Vec<u8>>,
    /// Its first and its last line, counted from 1.
    pub lines: (usize, usize),
    /// The first fault of its quotes, if any.
    pub fault: Option<String>,
}

/// The records of `content`, including the header. Empty lines are skipped.
pub fn records(content: &[u8]) -> Records<'_> {
    Records { rest: content, line: 1 }
}

/// An iterator over records.
pub struct Records<'a> {
    rest: &'a [u8],
    /// The number of the line on which `rest` begins.
    line: usize,
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        while self.skip_line_end() {}
        if self.rest.is_empty() {
            return None;
        }
        let first = self.line;
        let (mut cells, mut fault) = (Vec::new(), None);
        loop {
            let (cell, found) = self.cell();
            cells.push(cell);
            fault = fault.or(found);
            match self.rest.strip_prefix(b",") {
                Some(rest) => self.rest = rest,
                None => break,
            }
        }
        let lines = (first, self.line);
        self.skip_line_end();
        Some(Record { cells, lines, fault })
    }
}

impl<'a> Records<'a> {
    /// Reads a cell, and returns it with the fault of its quotes. A comma, a line end or the end of the file follows.
    fn cell(&mut self) -> (Vec<u8>, Option<String>) {
        let is_quoted = self.rest.first() == Some(&b'"');
        let (mut cell, mut fault) = if is_quoted { self.quoted() } else { (Vec::new(), None) };
        let rest = self.rest;
        let length = rest.iter().position(|byte| b",\r\n".contains(byte)).unwrap_or(rest.len());
        let plain = self.take(length);
        if is_quoted && !plain.is_empty() {
            fault = Some("a cell continues after its closing quote".into());
        } else if plain.contains(&b'"') {
            fault = Some("a cell without surrounding quotes contains a quote".into());
        }
        cell.extend(plain);
        (cell, fault)
    }

    /// Reads the content of a quoted cell and its closing quote.
    fn quoted(&mut self) -> (Vec<u8>, Option<String>) {
        let opened = self.line;
        let mut cell = Vec::new();
        self.take(1);
        loop {
            let Some(length) = self.rest.iter().position(|&byte| byte == b'"') else {
                // The last line end belongs to the record, not to the cell.
                let ends = [&b"\r\n"[..], b"\n", b"\r"].into_iter();
                let content = ends.filter_map(|end| self.rest.strip_suffix(end)).next().unwrap_or(self.rest);
                cell.extend(self.take(content.len()));
                return (cell, Some(format!("the quote opened on line {opened} is never closed")));
            };
            cell.extend(self.take(length));
            self.take(1);
            if self.rest.first() != Some(&b'"') {
                return (cell, None);
            }
            cell.extend(self.take(1));
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length);
        let is_end = |(index, byte): (usize, &u8)| match byte {
            b'\r' => taken.get(index + 1) != Some(&b'\n'),
            byte => *byte == b'\n',
        };
        self.line += taken.iter().enumerate().filter(|&byte| is_end(byte)).count();
        self.rest = rest;
        taken
    }

    /// Skips a line end, if it comes next.
    fn skip_line_end(&mut self) -> bool {
        let length = match self.rest {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => return false,
        };
        self.take(length);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records are those of Python 3.11's `csv.reader`, except for empty ones and for the last line end in an
    /// unclosed cell.
    #[test]
    fn records_equal_those_of_python() {
        for (content, expected) in [
            ("a,b\n1,2\n", &[&["a", "b"][..], &["1", "2"]][..]),
            ("a,b\r\n1,2\r\n\r\n3,4", &[&["a", "b"], &["1", "2"], &["3", "4"]]),
            ("a\rb", &[&["a"], &["b"]]),
            ("\"a,b\",\"c\nd\"\nx,y\n", &[&["a,b", "c\nd"], &["x", "y"]]),
            ("\"a\"\"b\",\"\"\n", &[&["a\"b", ""]]),
            (",\n", &[&["", ""]]),
            ("\"\"\"\n\"\n", &[&["\"\n"]]),
            ("\"a\"", &[&["a"]]),
            ("\"a\"\r\n\n\"b\"\n", &[&["a"], &["b"]]),
            ("\"é,\r\n\"\n", &[&["é,\r\n"]]),
            // Faulty records, which end where Python ends them.
            ("a\"b,c\nd,e\n", &[&["a\"b", "c"], &["d", "e"]]),
            ("\"a\"b,\"c\nd\",e\nf\n", &[&["ab", "c\nd", "e"], &["f"]]),
            ("\"a\" ,b\n", &[&["a ", "b"]]),
            (" \"a\",b\n", &[&[" \"a\"", "b"]]),
            ("a,b\"\"\nc", &[&["a", "b\"\""], &["c"]]),
            ("x,\"open\ny,z\n", &[&["x", "open\ny,z"]]),
            ("x,\"open\ny,\"z\"\nw\n", &[&["x", "open\ny,z\""], &["w"]]),
            ("", &[]),
            ("\n\r\n", &[]),
        ] {
            let text = |cell: Vec<u8>| String::from_utf8(cell).unwrap();
            let found: Vec<Vec<String>> = records(content.as_bytes())
                .map(|record| record.cells.into_iter().map(text).collect())
                .collect();
            assert_eq!(found, expected, "{content:?}");
        }
    }

    #[test]
    fn faults_of_quotes_are_found_with_their_lines() {
        let after = "a cell continues after its closing quote";
        let inside = "a cell without surrounding quotes contains a quote";
        let good = (1, 1, None);
        for (content, expected) in [
            ("a,\"\"\"b\"\"\",\"c,\"\n", &[good][..]),
            ("a\n\"b\nb\"\n\nc\n", &[good, (2, 3, None), (5, 5, None)]),
            ("a\r\n\"b\r\nb\"\r\n\r\nc", &[good, (2, 3, None), (5, 5, None)]),
            ("a\r\"b\rb\"\r\rc\r", &[good, (2, 3, None), (5, 5, None)]),
            ("a\"b,c\nd\n", &[(1, 1, Some(inside)), (2, 2, None)]),
            ("a, \"b\"\n", &[(1, 1, Some(inside))]),
            ("\"a\"b,\"c\nd\",e\nf\n", &[(1, 2, Some(after)), (3, 3, None)]),
            ("a\nx,\"\ny\"z\n", &[good, (2, 3, Some(after))]),
            ("a\nx,\"y\nz", &[good, (2, 3, Some("the quote opened on line 2 is never closed"))]),
            ("a\nx,\"y\r\n", &[good, (2, 2, Some("the quote opened on line 2 is never closed"))]),
            ("\"a\"b,\"c\n", &[(1, 1, Some(after))]),
        ] {
            let found: Vec<Record> = records(content.as_bytes()).collect();
            let found: Vec<_> = found
                .iter()
                .map(|record| (record.lines.0, record.lines.1, record.fault.as_deref()))
                .collect();
            assert_eq!(found, expected, "{content:?}");
        }
    }
}
