//! Tables of general knowledge. A row is a subject and what is true of it.

/// Country, capital, continent, currency.
pub(super) const COUNTRIES: &[[&str; 4]] = &[
    ["Japan", "Tokyo", "Asia", "yen"],
    ["India", "New Delhi", "Asia", "rupee"],
    ["Poland", "Warsaw", "Europe", "zloty"],
    ["Hungary", "Budapest", "Europe", "forint"],
    ["Sweden", "Stockholm", "Europe", "krona"],
    ["Norway", "Oslo", "Europe", "krone"],
    ["Denmark", "Copenhagen", "Europe", "krone"],
    ["Iceland", "Reykjavik", "Europe", "krona"],
    ["Romania", "Bucharest", "Europe", "leu"],
    ["Serbia", "Belgrade", "Europe", "dinar"],
    ["Albania", "Tirana", "Europe", "lek"],
    ["Brazil", "Brasilia", "South America", "real"],
    ["Peru", "Lima", "South America", "sol"],
    ["Argentina", "Buenos Aires", "South America", "peso"],
    ["Chile", "Santiago", "South America", "peso"],
    ["Colombia", "Bogota", "South America", "peso"],
    ["Uruguay", "Montevideo", "South America", "peso"],
    ["Paraguay", "Asuncion", "South America", "guarani"],
    ["Mexico", "Mexico City", "North America", "peso"],
    ["Canada", "Ottawa", "North America", "dollar"],
    ["South Korea", "Seoul", "Asia", "won"],
    ["Thailand", "Bangkok", "Asia", "baht"],
    ["Vietnam", "Hanoi", "Asia", "dong"],
    ["Mongolia", "Ulaanbaatar", "Asia", "tugrik"],
    ["Nepal", "Kathmandu", "Asia", "rupee"],
    ["Cambodia", "Phnom Penh", "Asia", "riel"],
    ["Laos", "Vientiane", "Asia", "kip"],
    ["Kenya", "Nairobi", "Africa", "shilling"],
    ["Uganda", "Kampala", "Africa", "shilling"],
    ["Ethiopia", "Addis Ababa", "Africa", "birr"],
    ["Nigeria", "Abuja", "Africa", "naira"],
    ["Ghana", "Accra", "Africa", "cedi"],
    ["Morocco", "Rabat", "Africa", "dirham"],
    ["Zambia", "Lusaka", "Africa", "kwacha"],
    ["Botswana", "Gaborone", "Africa", "pula"],
    ["Tunisia", "Tunis", "Africa", "dinar"],
];

/// Element, symbol, atomic number.
pub(super) const ELEMENTS: &[[&str; 3]] = &[
    ["hydrogen", "H", "1"],
    ["helium", "He", "2"],
    ["lithium", "Li", "3"],
    ["carbon", "C", "6"],
    ["nitrogen", "N", "7"],
    ["oxygen", "O", "8"],
    ["fluorine", "F", "9"],
    ["neon", "Ne", "10"],
    ["sodium", "Na", "11"],
    ["magnesium", "Mg", "12"],
    ["aluminium", "Al", "13"],
    ["silicon", "Si", "14"],
    ["sulfur", "S", "16"],
    ["chlorine", "Cl", "17"],
    ["argon", "Ar", "18"],
    ["potassium", "K", "19"],
    ["calcium", "Ca", "20"],
    ["titanium", "Ti", "22"],
    ["iron", "Fe", "26"],
    ["nickel", "Ni", "28"],
    ["zinc", "Zn", "30"],
    ["bromine", "Br", "35"],
    ["tin", "Sn", "50"],
    ["iodine", "I", "53"],
    ["tungsten", "W", "74"],
    ["platinum", "Pt", "78"],
    ["lead", "Pb", "82"],
    ["uranium", "U", "92"],
];

/// Planet, place from the Sun, sort.
pub(super) const PLANETS: &[[&str; 3]] = &[
    ["Mercury", "first", "rocky planet"],
    ["Venus", "second", "rocky planet"],
    ["Earth", "third", "rocky planet"],
    ["Mars", "fourth", "rocky planet"],
    ["Jupiter", "fifth", "gas giant"],
    ["Saturn", "sixth", "gas giant"],
    ["Uranus", "seventh", "ice giant"],
    ["Neptune", "eighth", "ice giant"],
];

/// Unit, what it measures, sign.
pub(super) const UNITS: &[[&str; 3]] = &[
    ["metre", "length", "m"],
    ["second", "time", "s"],
    ["kilogram", "mass", "kg"],
    ["ampere", "electric current", "A"],
    ["kelvin", "temperature", "K"],
    ["mole", "amount of substance", "mol"],
    ["candela", "luminous intensity", "cd"],
    ["newton", "force", "N"],
    ["joule", "energy", "J"],
    ["watt", "power", "W"],
    ["pascal", "pressure", "Pa"],
    ["hertz", "frequency", "Hz"],
    ["volt", "voltage", "V"],
    ["coulomb", "electric charge", "C"],
    ["farad", "capacitance", "F"],
    ["lux", "illuminance", "lx"],
];

/// River, continent, where it ends.
pub(super) const RIVERS: &[[&str; 3]] = &[
    ["Nile", "Africa", "Mediterranean Sea"],
    ["Ebro", "Europe", "Mediterranean Sea"],
    ["Amazon", "South America", "Atlantic Ocean"],
    ["Congo", "Africa", "Atlantic Ocean"],
    ["Loire", "Europe", "Atlantic Ocean"],
    ["Orinoco", "South America", "Atlantic Ocean"],
    ["Danube", "Europe", "Black Sea"],
    ["Dnieper", "Europe", "Black Sea"],
    ["Rhine", "Europe", "North Sea"],
    ["Elbe", "Europe", "North Sea"],
    ["Thames", "Europe", "North Sea"],
    ["Vistula", "Europe", "Baltic Sea"],
    ["Oder", "Europe", "Baltic Sea"],
    ["Volga", "Europe", "Caspian Sea"],
    ["Po", "Europe", "Adriatic Sea"],
    ["Yukon", "North America", "Bering Sea"],
    ["Indus", "Asia", "Arabian Sea"],
    ["Irrawaddy", "Asia", "Andaman Sea"],
    ["Yangtze", "Asia", "East China Sea"],
    ["Zambezi", "Africa", "Indian Ocean"],
];

/// Event as a clause, as a question, year.
pub(super) const EVENTS: &[[&str; 3]] = &[
    ["the French Revolution began", "did the French Revolution begin", "1789"],
    ["the Berlin Wall fell", "did the Berlin Wall fall", "1989"],
    ["people first walked on the Moon", "did people first walk on the Moon", "1969"],
    ["the First World War began", "did the First World War begin", "1914"],
    ["the First World War ended", "did the First World War end", "1918"],
    ["the Second World War ended", "did the Second World War end", "1945"],
    ["the Battle of Hastings was fought", "was the Battle of Hastings fought", "1066"],
    ["the Ottomans took Constantinople", "did the Ottomans take Constantinople", "1453"],
    ["the Magna Carta was sealed", "was the Magna Carta sealed", "1215"],
    ["the Eiffel Tower was opened", "was the Eiffel Tower opened", "1889"],
    ["the Suez Canal was opened", "was the Suez Canal opened", "1869"],
    ["the Great Fire of London broke out", "did the Great Fire of London break out", "1666"],
    ["the first satellite was launched", "was the first satellite launched", "1957"],
    ["the Titanic sank", "did the Titanic sink", "1912"],
    ["Krakatoa erupted", "did Krakatoa erupt", "1883"],
    ["the Battle of Waterloo was fought", "was the Battle of Waterloo fought", "1815"],
    ["the planet Neptune was discovered", "was the planet Neptune discovered", "1846"],
    ["the planet Uranus was discovered", "was the planet Uranus discovered", "1781"],
    ["the South Pole was first reached", "was the South Pole first reached", "1911"],
    ["Mount Everest was first climbed", "was Mount Everest first climbed", "1953"],
];

/// Whether a value that is not in a subject's row would still be no wrong answer.
pub(super) fn also_true(subject: &str, value: &str) -> bool {
    matches!(
        (subject, value),
        // One word in two languages; seas that are parts of larger ones.
        ("Sweden" | "Iceland", "krone")
            | ("Norway" | "Denmark", "krona")
            | ("Po", "Mediterranean Sea")
            | ("Indus" | "Irrawaddy", "Indian Ocean")
            | ("Rhine" | "Elbe" | "Thames" | "Vistula" | "Oder", "Atlantic Ocean")
    )
}
