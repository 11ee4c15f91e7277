//! Building blocks of invented lives: syllables of names and values of every kind of fact.

/// Beginnings of first names.
pub(super) const FIRST_STARTS: &[&str] = &[
    "Zel", "Vor", "Tav", "Quil", "Pry", "Oth", "Nym", "Mev", "Lus", "Kyr", "Jas", "Ild", "Hob", "Gav", "Fyn",
    "Eld", "Dru", "Cav", "Bry", "Arv", "Wyl", "Xan", "Uth", "Tham", "Syl", "Rhev", "Phil", "Osw", "Nev",
    "Mab", "Lor", "Kest", "Jor", "Isk", "Hald", "Gwen", "Fal", "Edm", "Dov", "Cass", "Berg", "And", "Zim",
    "Yel", "Vest", "Ulm", "Trud", "Som", "Rund", "Pash",
];
/// Ends of first names.
pub(super) const FIRST_ENDS: &[&str] = &[
    "arin", "imel", "ova", "usk", "ethra", "ondo", "ysa", "igo", "alba", "enor", "urra", "iast", "olin",
    "ebeth", "axa", "ilde", "omir", "una", "etta", "orix", "andel", "ivan", "ough", "esh", "ibald", "uce",
    "eo", "anth", "essa", "umon",
];
/// Beginnings of surnames.
pub(super) const SURNAME_STARTS: &[&str] = &[
    "Orb", "Skel", "Thack", "Brund", "Wend", "Harg", "Plim", "Drax", "Mosk", "Quar", "Felt", "Gorv", "Tresk",
    "Lurm", "Narb", "Stav", "Cruv", "Yark", "Bex", "Dunf", "Ketch", "Zorn", "Ralk", "Imm", "Ulv", "Pend",
    "Snar", "Drov", "Ast", "Blem", "Crig", "Delv", "Ebb", "Frim", "Glad", "Hux", "Jesp", "Kolb", "Lind",
    "Mav", "Nock", "Ovar", "Pruss", "Rind", "Shel", "Tolm", "Umb", "Varn", "Wick", "Zell", "Agr", "Birch",
    "Cald", "Dort", "Esk", "Fenn", "Grov", "Holt", "Jarr", "Kip",
];
/// Ends of surnames.
pub(super) const SURNAME_ENDS: &[&str] = &[
    "ander", "ovic", "igan", "ore", "ley", "quist", "hurst", "esson", "oway", "field", "ack", "ridge",
    "enko", "thorpe", "ingle", "ado", "ert", "ume", "land", "ost", "amy", "burn", "combe", "dale", "erby",
    "fax", "gate", "ham", "itz", "kins",
];

/// Beginnings of invented cities.
pub(super) const CITY_STARTS: &[&str] =
    &["Vel", "Kar", "Dor", "Lim", "Ost", "Zim", "Sal", "Tor", "Nar", "Fal", "Gil", "Pol"];
/// Ends of invented cities.
pub(super) const CITY_ENDS: &[&str] = &["mora", "stad", "haven", "vrel"];

/// Beginnings of the first names of spouses.
pub(super) const SPOUSE_STARTS: &[&str] =
    &["Ami", "Bera", "Celo", "Dani", "Edu", "Fio", "Gera", "Isa", "Jolo", "Kali", "Luci", "Meri"];
/// Ends of the first names of spouses.
pub(super) const SPOUSE_ENDS: &[&str] = &["nde", "rik", "sha", "tel"];

/// Beginnings of the names of schools.
pub(super) const SCHOOL_STARTS: &[&str] = &[
    "Brack", "Nesk", "Thul", "Wint", "Corm", "Hald", "Gren", "Mist", "Rusk", "Tarn", "Vand", "Ebb", "Lorn",
    "Sorb", "Dunk",
];
/// Ends of the names of schools.
pub(super) const SCHOOL_ENDS: &[&str] = &["well College", "ford Academy", "mere University"];

/// Namesakes of workplaces.
pub(super) const WORKPLACES: &[&str] = &[
    "Heron", "Maple", "Anchor", "Lantern", "Granite", "Falcon", "Cedar", "Copper", "Meadow", "Raven",
    "Willow", "Summit", "Beacon", "Orchard", "Thistle", "Amber", "Juniper", "Compass", "Badger", "Comet",
];

/// Namesakes of awards.
pub(super) const AWARDS: &[&str] = &[
    "Laurel", "Crystal", "Ivory", "Scarlet", "Silver", "Sapphire", "Emerald", "Jade", "Pearl", "Coral",
    "Marble", "Velvet", "Bronze", "Onyx", "Topaz", "Opal", "Garnet", "Quartz", "Ruby", "Indigo",
];
/// Kinds of awards.
pub(super) const AWARD_ENDS: &[&str] = &["Prize", "Medal"];

/// First words of the titles of works.
pub(super) const TITLE_STARTS: &[&str] =
    &["Quiet", "Hidden", "Broken", "Distant", "Burning", "Hollow", "Frozen", "Gentle"];
/// Last words of the titles of works.
pub(super) const TITLE_ENDS: &[&str] =
    &["River", "Bridge", "Garden", "Window", "Mountain", "Letter", "Forest", "Tower"];

/// Pastimes.
pub(super) const HOBBIES: &[&str] = &[
    "chess",
    "sailing",
    "fishing",
    "rowing",
    "cycling",
    "gardening",
    "archery",
    "fencing",
    "knitting",
    "juggling",
    "hiking",
    "swimming",
    "skating",
    "beekeeping",
    "stargazing",
    "cooking",
    "baking",
    "dancing",
    "climbing",
    "birdwatching",
    "embroidery",
    "origami",
    "calligraphy",
    "tennis",
    "billiards",
    "running",
    "riding",
    "surfing",
    "canoeing",
    "yoga",
    "golf",
    "puzzles",
    "bowling",
    "skiing",
    "croquet",
    "darts",
];

/// The first and last possible year of birth.
pub(super) const BIRTH_YEARS: (usize, usize) = (1921, 1980);

/// A line of work: professions that share workplaces and a sort of work.
pub(super) struct Field {
    /// Professions of this field.
    pub(super) professions: &'static [&'static str],
    /// Kinds of workplaces.
    pub(super) workplaces: &'static [&'static str],
    /// Kinds of works.
    pub(super) work: &'static str,
}

/// All fields.
pub(super) const FIELDS: &[Field] = &[
    Field {
        professions: &["botanist", "chemist", "geologist", "physicist", "zoologist", "astronomer", "surgeon"],
        workplaces: &["Institute", "Laboratory"],
        work: "study",
    },
    Field {
        professions: &["painter", "sculptor", "potter", "engraver", "weaver", "photographer", "jeweller"],
        workplaces: &["Gallery", "Studio"],
        work: "series",
    },
    Field {
        professions: &["novelist", "poet", "historian", "translator", "journalist", "critic", "publisher"],
        workplaces: &["Press", "Review"],
        work: "book",
    },
    Field {
        professions: &["pianist", "violinist", "composer", "singer", "conductor", "cellist", "drummer"],
        workplaces: &["Orchestra", "Opera"],
        work: "album",
    },
    Field {
        professions: &["architect", "engineer", "carpenter", "shipwright", "clockmaker", "surveyor", "mason"],
        workplaces: &["Works", "Yard"],
        work: "design",
    },
    Field {
        professions: &["baker", "brewer", "butcher", "chef", "farmer", "gardener", "winemaker"],
        workplaces: &["Kitchen", "Farm"],
        work: "recipe",
    },
    Field {
        professions: &["lawyer", "judge", "diplomat", "mayor", "banker", "economist", "accountant"],
        workplaces: &["Chambers", "Bank"],
        work: "treaty",
    },
    Field {
        professions: &["pilot", "sailor", "fisherman", "guide", "explorer", "cartographer", "navigator"],
        workplaces: &["Line", "Harbour"],
        work: "chart",
    },
];

/// Every beginning combined with every end.
pub(super) fn pairs(starts: &[&str], joint: &str, ends: &[&str]) -> Vec<String> {
    starts.iter().flat_map(|start| ends.iter().map(move |end| format!("{start}{joint}{end}"))).collect()
}
